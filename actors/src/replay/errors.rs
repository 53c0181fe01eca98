//! Errors from their records: from the code and the parts of each, never from its text. Only of recordings without
//! parts, the parts are taken from the text ([`error_text`]).

use std::time::Duration;

use throughline_schemas::{
    TraceParent,
    event::{
        external::FailedCall,
        generation::{Attempt, AttemptError, CostUnknown},
    },
};

use super::error_text;
use crate::{
    dependency::Refused,
    ports::{
        model::{CallFacts, ModelError, ModelFailure, Phase},
        source::{AnswerRoom, FetchCall, FetchError, Method},
    },
};

/// What prevented a call to a model, or what it failed of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FailedAttempt {
    /// The breaker or the pace of its provider.
    Refused(Refused),
    /// Rate limits had no room for so long.
    NoRoom(Duration),
    /// Decided without asking anybody: the request does not fit.
    DoesNotFit,
    /// It was made, and failed.
    Failed(ModelFailure),
}

/// What became of a recorded attempt; `None` if it succeeded.
pub(super) fn failed_attempt(attempt: &Attempt) -> Option<FailedAttempt> {
    let code = attempt.error_code?;
    let detail = attempt.error_detail.clone().unwrap_or_else(|| error_text::of_attempt(code, attempt));
    let should_retry = if attempt.error_detail.is_some() {
        attempt.should_retry
    } else {
        error_text::should_retry(code, attempt.error_class)
    };
    let wait = detail.wait_ms.map(Duration::from_millis);
    let words = detail.message.unwrap_or_default();
    let error = match code {
        AttemptError::BreakerOpen => {
            let cause = detail.breaker_cause.map(Into::into);
            return Some(FailedAttempt::Refused(Refused::BreakerOpen(wait.unwrap_or_default(), cause)));
        }
        AttemptError::Paced => {
            return Some(FailedAttempt::Refused(Refused::Paced(wait.unwrap_or_default())));
        }
        // Only a limit that may have room later has a wait.
        AttemptError::OwnRateLimit => {
            return Some(wait.map_or(FailedAttempt::DoesNotFit, FailedAttempt::NoRoom));
        }
        AttemptError::ContextTooLong if !attempt.sent => return Some(FailedAttempt::DoesNotFit),
        AttemptError::ContextTooLong => ModelError::ContextTooLong(words),
        AttemptError::Credentials => ModelError::Credentials(words),
        AttemptError::Forbidden => ModelError::Forbidden(words),
        AttemptError::BadRequest => ModelError::BadRequest(words),
        AttemptError::QuotaExhausted => ModelError::QuotaExhausted(words),
        AttemptError::UnknownModel => ModelError::UnknownModel(words),
        AttemptError::ContentFiltered => ModelError::ContentFiltered(words),
        AttemptError::RateLimited => ModelError::RateLimited(words),
        AttemptError::Server => ModelError::Server(words),
        AttemptError::Unreachable => ModelError::Unreachable(words),
        AttemptError::CutShort => ModelError::CutShort(words),
        AttemptError::ConnectTimeout => ModelError::TimedOut(Phase::Connect),
        AttemptError::FirstTokenTimeout => ModelError::TimedOut(Phase::FirstToken),
        AttemptError::ReadTimeout => ModelError::TimedOut(Phase::Read),
        AttemptError::TotalTimeout => ModelError::TimedOut(Phase::Total),
        AttemptError::TooLarge => ModelError::TooLarge(bytes(detail.limit_bytes.unwrap_or_default())),
        AttemptError::BadResponse if detail.well_formed => ModelError::Unfit(words),
        AttemptError::LimitUsedUp => ModelError::LimitUsedUp(words),
        AttemptError::BadResponse | AttemptError::Unrecognised => ModelError::BadResponse(words),
    };
    let facts = CallFacts { should_retry, ..facts(attempt) };
    Some(FailedAttempt::Failed(ModelFailure { error, usage: attempt.usage, facts }))
}

/// What the provider said besides, as far as it is on record.
pub(super) fn facts(attempt: &Attempt) -> CallFacts {
    CallFacts {
        http_status: attempt.http_status,
        request_id: attempt.request_id.clone(),
        retry_after: attempt.retry_after_ms.map(Duration::from_millis),
        should_retry: None,
        first_token: attempt.first_token_ms.map(Duration::from_millis),
        allowances: None,
        stated_cost: attempt.stated_cost_usd,
        counted_nothing: attempt.cost_unknown == Some(CostUnknown::NothingCounted),
    }
}

/// What a recorded call to a source failed of; `Err` if it was prevented.
pub(super) fn failed_fetch(failed: &FailedCall, call: &FetchCall) -> Result<FetchError, Refused> {
    let detail = failed.error_detail.clone().unwrap_or_else(|| error_text::of_call(failed));
    let wait = Duration::from_millis(detail.wait_ms.unwrap_or_default());
    let words = detail.message.unwrap_or_default();
    let status = failed.error.http_status.unwrap_or_default();
    let retry_after = failed.retry_after_ms.map(Duration::from_millis);
    Ok(match failed.error.code.as_str() {
        "breaker_open" => {
            return Err(Refused::BreakerOpen(wait, detail.breaker_cause.map(Into::into)));
        }
        "rate_limited" if failed.error.http_status.is_none() => return Err(Refused::Paced(wait)),
        "rate_limited" => FetchError::RateLimited { retry_after },
        "timed_out" => FetchError::TimedOut(detail.limit_ms.map_or(call.timeout, Duration::from_millis)),
        "not_found" => FetchError::NotFound(status),
        "status" if matches!(status, 408 | 425 | 500..) => FetchError::Server { status, retry_after },
        "status" => FetchError::Refused(status),
        "too_large" => FetchError::TooLarge(detail.limit_bytes.map_or(call.max_bytes, bytes)),
        "not_json" => FetchError::NotJson(words),
        "misconfigured" => FetchError::Misconfigured(words),
        // `unreachable`, and codes of other versions.
        _ => FetchError::Unreachable(words),
    })
}

/// A call to read a record with, where nothing is known of the real one.
pub(super) fn any_fetch() -> FetchCall {
    FetchCall {
        source: String::new(),
        url: String::new(),
        method: Method::Get,
        headers: Vec::new(),
        body: None,
        timeout: Duration::ZERO,
        max_bytes: 0,
        traceparent: TraceParent::root(1, 1),
        room: AnswerRoom::default(),
    }
}

fn bytes(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
