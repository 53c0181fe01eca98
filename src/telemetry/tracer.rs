//! The trace context that events carry, from spans.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use throughline_actors::ports::trace::Tracer;
use throughline_schemas::TraceParent;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Spans are recorded and exported; the context is that of the recorded span.
pub(super) struct Exported;

impl Tracer for Exported {
    fn adopt(&self, span: &Span, parent: Option<TraceParent>) -> TraceParent {
        // Without a parent, an empty context: a span that happens to surround this one belongs to another workflow.
        let context = parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(remote(parent)));
        // It fails for a span that nobody records, which the next step notices.
        let _ = span.set_parent(context);
        let own = span.context();
        let own = own.span().span_context().clone();
        if own.is_valid() {
            TraceParent::from_parts(
                u128::from_be_bytes(own.trace_id().to_bytes()),
                u64::from_be_bytes(own.span_id().to_bytes()),
                own.trace_flags().to_u8(),
            )
        } else {
            HandedOn.adopt(span, parent)
        }
    }
}

fn remote(parent: TraceParent) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(parent.trace_id().to_be_bytes()),
        SpanId::from_bytes(parent.span_id().to_be_bytes()),
        TraceFlags::new(parent.flags()),
        true,
        TraceState::NONE,
    )
}

/// Nothing is recorded here; the context goes on, so that events of one workflow share a trace all the same.
///
/// The sampled flag is the publisher's decision and stays as it is. A trace that begins here is flagged as sampled:
/// another worker, or a data source, may well record its part.
pub(super) struct HandedOn;

impl Tracer for HandedOn {
    fn adopt(&self, _: &Span, parent: Option<TraceParent>) -> TraceParent {
        match parent {
            Some(parent) => parent.child(rand::random()),
            None => TraceParent::root(rand::random(), rand::random()),
        }
    }
}
