//! Errors from their records. A record has the code and the text of an error, of which the text is what [`Display`]
//! made of it; so what an error was made of is what its text has beyond that of an empty one.
//!
//! [`Display`]: std::fmt::Display

use std::time::Duration;

use throughline_schemas::event::{
    external::FailedCall,
    generation::{Attempt, AttemptError, CostUnknown, ErrorClass},
};

use crate::{
    dependency::Refused,
    ports::{
        model::{CallFacts, ModelError, ModelFailure, Phase},
        source::{FetchCall, FetchError},
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
    let text = attempt.error.as_deref().unwrap_or_default();
    let words = |of: fn(String) -> ModelError| of(beyond(&of(String::new()).to_string(), text).to_owned());
    // Words that an error may lack stand behind a colon.
    let may_lack = |of: fn(String) -> ModelError| {
        let beyond = beyond(&of(String::new()).to_string(), text);
        of(beyond.strip_prefix(": ").unwrap_or_default().to_owned())
    };
    let error = match attempt.error_code? {
        AttemptError::BreakerOpen => return Some(FailedAttempt::Refused(breaker_open(text))),
        AttemptError::Paced => return Some(FailedAttempt::Refused(Refused::Paced(wait_in(text)))),
        AttemptError::OwnRateLimit if attempt.error_class.is_none() => {
            return Some(FailedAttempt::NoRoom(wait_in(text)));
        }
        AttemptError::OwnRateLimit => return Some(FailedAttempt::DoesNotFit),
        AttemptError::ContextTooLong if !attempt.sent => return Some(FailedAttempt::DoesNotFit),
        AttemptError::ContextTooLong => words(ModelError::ContextTooLong),
        AttemptError::Credentials => may_lack(ModelError::Credentials),
        AttemptError::Forbidden => words(ModelError::Forbidden),
        AttemptError::BadRequest => words(ModelError::BadRequest),
        AttemptError::QuotaExhausted => words(ModelError::QuotaExhausted),
        AttemptError::UnknownModel => words(ModelError::UnknownModel),
        AttemptError::ContentFiltered => words(ModelError::ContentFiltered),
        AttemptError::RateLimited => may_lack(ModelError::RateLimited),
        AttemptError::Server => words(ModelError::Server),
        AttemptError::Unreachable => words(ModelError::Unreachable),
        AttemptError::CutShort => words(ModelError::CutShort),
        AttemptError::ConnectTimeout => ModelError::TimedOut(Phase::Connect),
        AttemptError::FirstTokenTimeout => ModelError::TimedOut(Phase::FirstToken),
        AttemptError::ReadTimeout => ModelError::TimedOut(Phase::Read),
        AttemptError::TotalTimeout => ModelError::TimedOut(Phase::Total),
        AttemptError::TooLarge => {
            ModelError::TooLarge(usize::try_from(last_number(text)).unwrap_or(usize::MAX))
        }
        AttemptError::BadResponse if text.contains(&ModelError::Unfit(String::new()).to_string()) => {
            words(ModelError::Unfit)
        }
        AttemptError::LimitUsedUp => words(ModelError::LimitUsedUp),
        AttemptError::BadResponse | AttemptError::Unrecognised => words(ModelError::BadResponse),
    };
    let facts = CallFacts { should_retry: should_retry(&error, attempt.error_class), ..facts(attempt) };
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

/// The provider's word on trying again is not on record, but where it overrides what the error suggests, the class is.
fn should_retry(error: &ModelError, class: Option<ErrorClass>) -> Option<bool> {
    match (error, class) {
        (ModelError::BadRequest(_), Some(ErrorClass::Transient)) => Some(true),
        (ModelError::RateLimited(_) | ModelError::Server(_), Some(ErrorClass::Permanent)) => Some(false),
        _ => None,
    }
}

/// What a recorded call to a source failed of; `Err` if it was prevented.
pub(super) fn failed_fetch(failed: &FailedCall, call: &FetchCall) -> Result<FetchError, Refused> {
    let text = failed.error.message.as_str();
    let status = failed.error.http_status.unwrap_or_default();
    let retry_after = failed.retry_after_ms.map(Duration::from_millis);
    let words = |of: fn(String) -> FetchError| of(beyond(&of(String::new()).to_string(), text).to_owned());
    Ok(match failed.error.code.as_str() {
        "breaker_open" => return Err(breaker_open(text)),
        "rate_limited" if failed.error.http_status.is_none() => return Err(Refused::Paced(wait_in(text))),
        "rate_limited" => FetchError::RateLimited { retry_after },
        "timed_out" => FetchError::TimedOut(call.timeout),
        "not_found" => FetchError::NotFound(status),
        "status" if matches!(status, 408 | 425 | 500..) => FetchError::Server { status, retry_after },
        "status" => FetchError::Refused(status),
        "too_large" => FetchError::TooLarge(call.max_bytes),
        "not_json" => words(FetchError::NotJson),
        "misconfigured" => words(FetchError::Misconfigured),
        // `unreachable`, and codes of other versions: the text says what happened.
        _ => words(FetchError::Unreachable),
    })
}

/// What a text has behind a beginning, wherever that begins.
fn beyond<'a>(beginning: &str, text: &'a str) -> &'a str {
    text.find(beginning).and_then(|at| text.get(at + beginning.len()..)).unwrap_or(text)
}

/// The refusal of an open breaker, with what opened it if that is on record.
fn breaker_open(text: &str) -> Refused {
    const BEFORE: &str = "breaker is open (";
    const BEHIND: &str = ") for another ";
    let cause = text.find(BEFORE).zip(text.rfind(BEHIND));
    let cause = cause.and_then(|(before, behind)| text.get(before + BEFORE.len()..behind));
    Refused::BreakerOpen(wait_in(text), cause.map(Into::into))
}

fn wait_in(text: &str) -> Duration {
    Duration::from_millis(last_number(text))
}

fn last_number(text: &str) -> u64 {
    let digits = text.rsplit(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use throughline_schemas::{Millis, event::external::SourceError};

    use super::*;
    use crate::{
        model::client::GenerationError,
        ports::{
            Classify, Fault,
            source::{AnswerRoom, Method},
        },
    };

    fn attempt(error: &GenerationError) -> Attempt {
        let class = match error.fault() {
            _ if matches!(error, GenerationError::Refused(_) | GenerationError::OwnRateLimit(_)) => None,
            Fault::Permanent => Some(ErrorClass::Permanent),
            Fault::Transient { .. } => Some(ErrorClass::Transient),
            Fault::Unknown => Some(ErrorClass::Unknown),
        };
        let json = serde_json::json!({
            "provider": "p", "model": "m", "started_at": "2026-01-01T00:00:00Z", "duration_ms": 1,
            "sent": matches!(error, GenerationError::Failed(_)),
            "error": error.to_string(), "error_code": error.code(), "error_class": class,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_failure_of_a_model_comes_back_as_it_was() {
        let words = || "HTTP 500: 12 ms, \"quoted\": the provider failed: twice".to_owned();
        for error in [
            ModelError::Credentials(words()),
            ModelError::Credentials(String::new()),
            ModelError::Forbidden(words()),
            ModelError::BadRequest(words()),
            ModelError::QuotaExhausted(words()),
            ModelError::UnknownModel(words()),
            ModelError::ContextTooLong(words()),
            ModelError::ContentFiltered(words()),
            ModelError::RateLimited(words()),
            ModelError::RateLimited(String::new()),
            ModelError::Server(words()),
            ModelError::Unreachable(words()),
            ModelError::CutShort(words()),
            ModelError::TimedOut(Phase::Connect),
            ModelError::TimedOut(Phase::FirstToken),
            ModelError::TimedOut(Phase::Read),
            ModelError::TimedOut(Phase::Total),
            ModelError::TooLarge(4_194_304),
            ModelError::BadResponse(words()),
            ModelError::Unfit(words()),
            ModelError::LimitUsedUp(words()),
        ] {
            for should_retry in [None, Some(true), Some(false)] {
                let facts = CallFacts { should_retry, ..CallFacts::default() };
                let failure = ModelFailure { error: error.clone(), usage: None, facts };
                let recorded = attempt(&GenerationError::Failed(failure.clone()));
                let Some(FailedAttempt::Failed(again)) = failed_attempt(&recorded) else { panic!("{error}") };
                assert_eq!((&again.error, again.fault()), (&failure.error, failure.fault()), "{error}");
            }
        }
    }

    #[test]
    fn what_prevented_a_call_comes_back_as_it_was() {
        let wait = Duration::from_millis(12_345);
        let open = |cause: Option<&str>| Refused::BreakerOpen(wait, cause.map(Into::into));
        for (error, expected) in [
            (GenerationError::Refused(open(None)), FailedAttempt::Refused(open(None))),
            (
                GenerationError::Refused(open(Some("503 (x) for another 9 ms"))),
                FailedAttempt::Refused(open(Some("503 (x) for another 9 ms"))),
            ),
            (GenerationError::Refused(Refused::Paced(wait)), FailedAttempt::Refused(Refused::Paced(wait))),
            (GenerationError::OwnRateLimit(wait), FailedAttempt::NoRoom(wait)),
            (GenerationError::OverRateLimit { tokens: 9, limit: 8 }, FailedAttempt::DoesNotFit),
            (GenerationError::DoesNotFit { needed: 9, answer: 1, window: 8 }, FailedAttempt::DoesNotFit),
        ] {
            assert_eq!(failed_attempt(&attempt(&error)), Some(expected));
        }
    }

    #[test]
    fn every_failure_of_a_source_comes_back_as_it_was() {
        let call = FetchCall {
            source: "orders".to_owned(),
            url: String::new(),
            method: Method::Get,
            headers: Vec::new(),
            body: None,
            timeout: Duration::from_secs(2),
            max_bytes: 65_536,
            traceparent: throughline_schemas::TraceParent::root(1, 1),
            room: AnswerRoom::default(),
        };
        let words = || "the connection was refused (os error 111)".to_owned();
        let after = Some(Duration::from_secs(9));
        let record = |code: &str, status, text: String, hint: Option<Duration>| FailedCall {
            url: 0,
            duration_ms: Millis::default(),
            error: SourceError {
                code: code.to_owned(),
                message: format!("orders: {text}"),
                http_status: status,
            },
            retry_after_ms: hint.map(|hint| u64::try_from(hint.as_millis()).unwrap()),
            retry_in_ms: None,
        };
        for error in [
            FetchError::TimedOut(call.timeout),
            FetchError::Unreachable(words()),
            FetchError::NotFound(410),
            FetchError::RateLimited { retry_after: after },
            FetchError::Server { status: 503, retry_after: after },
            FetchError::Server { status: 408, retry_after: None },
            FetchError::Refused(403),
            FetchError::TooLarge(call.max_bytes),
            FetchError::NotJson(words()),
            FetchError::Misconfigured(words()),
        ] {
            let hint = match error.fault() {
                Fault::Transient { wait_at_least } => wait_at_least,
                Fault::Permanent | Fault::Unknown => None,
            };
            let recorded = record(error.code(), error.http_status(), error.to_string(), hint);
            assert_eq!(failed_fetch(&recorded, &call), Ok(error));
        }
        for (code, refused) in [
            (
                "breaker_open",
                Refused::BreakerOpen(Duration::from_millis(77), Some("failed (HTTP 503)".into())),
            ),
            ("rate_limited", Refused::Paced(Duration::from_millis(77))),
        ] {
            assert_eq!(failed_fetch(&record(code, None, refused.to_string(), None), &call), Err(refused));
        }
    }
}
