//! Every error comes back as it was from what is recorded of it today, whatever its text says.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::{
    dependency::{self, CallError},
    model::client::GenerationError,
    stages::external::failed_call::failed_call,
};

/// A text from which the parser of texts would read other words, waits and limits than any that are tested with.
const OTHER_TEXT: &str = "the provider failed: its breaker is open (something else) for another 99 ms";

fn attempt(error: &GenerationError) -> Attempt {
    let should_retry = match error {
        GenerationError::Failed(failure) => failure.facts.should_retry,
        GenerationError::NoModel
        | GenerationError::DoesNotFit { .. }
        | GenerationError::OwnRateLimit(_)
        | GenerationError::HeldTooLong { .. }
        | GenerationError::OverRateLimit { .. }
        | GenerationError::Refused(_) => None,
    };
    let json = json!({
        "provider": "p", "model": "m", "started_at": "2026-01-01T00:00:00Z", "duration_ms": 1,
        "sent": matches!(error, GenerationError::Failed(_)), "should_retry": should_retry,
        "error": OTHER_TEXT, "error_code": error.code(), "error_class": error.class(), "error_detail": error.detail(),
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn every_failure_of_a_model_comes_back_from_its_parts() {
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
        ModelError::Server(String::new()),
        ModelError::Unreachable(words()),
        ModelError::CutShort(words()),
        ModelError::TimedOut(Phase::Connect),
        ModelError::TimedOut(Phase::FirstToken),
        ModelError::TimedOut(Phase::Read),
        ModelError::TimedOut(Phase::Total),
        ModelError::TooLarge(4_194_304),
        ModelError::BadResponse(words()),
        ModelError::BadResponse("the provider's answer is no answer to this request: x".to_owned()),
        ModelError::Unfit(words()),
        ModelError::LimitUsedUp(words()),
    ] {
        for should_retry in [None, Some(true), Some(false)] {
            let facts = CallFacts { should_retry, ..CallFacts::default() };
            let failure = ModelFailure { error: error.clone(), usage: None, facts };
            let recorded = attempt(&GenerationError::Failed(failure.clone()));
            assert_eq!(failed_attempt(&recorded), Some(FailedAttempt::Failed(failure)), "{error}");
        }
    }
}

#[test]
fn what_prevented_a_call_comes_back_from_its_parts() {
    let (wait, total) = (Duration::from_millis(12_345), Duration::from_mins(10));
    let open = |cause: Option<&str>| Refused::BreakerOpen(wait, cause.map(Into::into));
    for (error, expected) in [
        (GenerationError::Refused(open(None)), FailedAttempt::Refused(open(None))),
        (
            GenerationError::Refused(open(Some("503 (x) for another 9 ms"))),
            FailedAttempt::Refused(open(Some("503 (x) for another 9 ms"))),
        ),
        (GenerationError::Refused(Refused::Paced(wait)), FailedAttempt::Refused(Refused::Paced(wait))),
        (GenerationError::OwnRateLimit(wait), FailedAttempt::NoRoom(wait)),
        (GenerationError::HeldTooLong { wait, total }, FailedAttempt::NoRoom(wait)),
        (GenerationError::OverRateLimit { tokens: 9, limit: 8 }, FailedAttempt::DoesNotFit),
        (GenerationError::DoesNotFit { needed: 9, answer: 1, window: 8 }, FailedAttempt::DoesNotFit),
    ] {
        assert_eq!(failed_attempt(&attempt(&error)), Some(expected), "{error}");
    }
}

#[test]
fn the_tokens_of_what_does_not_fit_are_on_record() {
    let of = |error: GenerationError| {
        let detail = error.detail();
        (detail.needed_tokens, detail.answer_tokens, detail.limit_tokens, detail.wait_ms)
    };
    let window = GenerationError::DoesNotFit { needed: 9, answer: 1, window: 8 };
    assert_eq!(of(window), (Some(9), Some(1), Some(8), None));
    assert_eq!(of(GenerationError::OverRateLimit { tokens: 9, limit: 8 }), (Some(9), None, Some(8), None));
}

#[test]
fn every_failure_of_a_source_comes_back_from_its_parts() {
    // Other limits than those of the configuration that the recording was made with.
    let call = FetchCall { timeout: Duration::from_secs(77), max_bytes: 77, ..any_fetch() };
    let record = |error: &CallError<FetchError>| {
        let (took, again_in, jitter) = (Duration::ZERO, Some(Duration::from_millis(5)), Some(3_000_000_000));
        let attempt = dependency::FailedAttempt { error, took, again_in, jitter };
        let mut failed = failed_call("orders", 1, &attempt);
        OTHER_TEXT.clone_into(&mut failed.error.message);
        let written = serde_json::to_string(&failed).unwrap();
        assert_eq!(serde_json::from_str::<FailedCall>(&written).unwrap(), failed);
        assert_eq!((failed.retry_in_ms, failed.jitter), (Some(5), Some(3_000_000_000)));
        failed
    };
    let words = || "the connection was refused (os error 111)".to_owned();
    let after = Some(Duration::from_secs(9));
    for error in [
        FetchError::TimedOut(Duration::from_secs(2)),
        FetchError::Unreachable(words()),
        FetchError::NotFound(410),
        FetchError::RateLimited { retry_after: after },
        FetchError::RateLimited { retry_after: None },
        FetchError::Server { status: 503, retry_after: after },
        FetchError::Server { status: 408, retry_after: None },
        FetchError::Refused(403),
        FetchError::TooLarge(65_536),
        FetchError::NotJson(words()),
        FetchError::Misconfigured(words()),
    ] {
        let recorded = record(&CallError::Failed(error.clone()));
        assert_eq!(failed_fetch(&recorded, &call), Ok(error));
    }
    let wait = Duration::from_millis(77);
    for refused in [
        Refused::BreakerOpen(wait, None),
        Refused::BreakerOpen(wait, Some("failed (HTTP 503) for another 9 ms".into())),
        Refused::Paced(wait),
    ] {
        let recorded = record(&CallError::Refused(refused.clone()));
        assert_eq!(failed_fetch(&recorded, &call), Err(refused));
    }
}
