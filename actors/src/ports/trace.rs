//! Trace context across processes.

use throughline_schemas::TraceParent;

/// Ties local spans to the workflow's trace.
pub trait Tracer: Send + Sync + 'static {
    /// Makes `span` a child of `parent` (or the root of a new trace) and returns the context to hand on, in which
    /// `span` is the parent.
    fn adopt(&self, span: &tracing::Span, parent: Option<TraceParent>) -> TraceParent;
}
