//! The trace context of a call, as W3C Trace Context has it.

use reqwest::header::{HeaderName, HeaderValue};
use throughline_schemas::TraceParent;

/// Name of the header.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace context as a header.
pub(crate) fn traceparent(parent: TraceParent) -> HeaderValue {
    // Hexadecimal digits and hyphens are always a valid value.
    HeaderValue::try_from(parent.to_string()).unwrap_or(HeaderValue::from_static(""))
}
