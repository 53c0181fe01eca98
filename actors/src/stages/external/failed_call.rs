//! What is written down about every call to a source that failed or was prevented.

use throughline_schemas::event::{
    ErrorDetail,
    external::{FailedCall, SourceError},
};

use crate::{
    dependency::{CallError, FailedAttempt, Refused, whole_millis},
    ports::{Classify, Fault, source::FetchError},
};

pub(crate) fn failed_call(
    source: &str,
    url: u32,
    failed_attempt: &FailedAttempt<'_, FetchError>,
) -> FailedCall {
    let asked = match failed_attempt.error {
        CallError::Refused(_) => None,
        CallError::Failed(error) => match error.fault() {
            Fault::Transient { wait_at_least } => wait_at_least,
            Fault::Permanent | Fault::Unknown => None,
        },
    };
    FailedCall {
        url,
        duration_ms: failed_attempt.took.into(),
        error: source_error(source, failed_attempt.error),
        error_detail: Some(detail(failed_attempt.error)),
        retry_after_ms: asked.map(whole_millis),
        retry_in_ms: failed_attempt.again_in.map(whole_millis),
        jitter: failed_attempt.jitter,
    }
}

pub(super) fn source_error(source: &str, error: &CallError<FetchError>) -> SourceError {
    let (code, http_status) = match error {
        CallError::Refused(Refused::BreakerOpen(..)) => ("breaker_open", None),
        CallError::Refused(Refused::Paced(_)) => ("rate_limited", None),
        CallError::Failed(error) => (error.code(), error.http_status()),
    };
    SourceError { code: code.to_owned(), message: format!("{source}: {error}"), http_status }
}

/// The parts of an error, besides its code and the status.
fn detail(error: &CallError<FetchError>) -> ErrorDetail {
    let none = ErrorDetail::default();
    let error = match error {
        CallError::Refused(refused) => return refused.detail(),
        CallError::Failed(error) => error,
    };
    match error {
        FetchError::Unreachable(message)
        | FetchError::NotJson(message)
        | FetchError::Misconfigured(message) => ErrorDetail { message: Some(message.clone()), ..none },
        FetchError::TimedOut(limit) => ErrorDetail { limit_ms: Some(whole_millis(*limit)), ..none },
        FetchError::TooLarge(limit) => ErrorDetail { limit_bytes: u64::try_from(*limit).ok(), ..none },
        FetchError::NotFound(_)
        | FetchError::RateLimited { .. }
        | FetchError::Server { .. }
        | FetchError::Refused(_) => none,
    }
}
