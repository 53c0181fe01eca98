//! Every error comes back as it was from a text of a version that recorded nothing else.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use throughline_schemas::{
    Millis, TraceParent,
    event::{
        external::{FailedCall, SourceError},
        generation::Attempt,
    },
};

use super::super::errors::{FailedAttempt, failed_attempt, failed_fetch};
use crate::{
    dependency::Refused,
    model::client::GenerationError,
    ports::{
        Classify, Fault,
        model::{CallFacts, ModelError, ModelFailure, Phase},
        source::{AnswerRoom, FetchCall, FetchError, Method},
    },
};

fn attempt(error: &GenerationError, text: &str) -> Attempt {
    let json = serde_json::json!({
        "provider": "p", "model": "m", "started_at": "2026-01-01T00:00:00Z", "duration_ms": 1,
        "sent": matches!(error, GenerationError::Failed(_)),
        "error": text, "error_code": error.code(), "error_class": error.class(),
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn every_failure_of_a_model_comes_back_as_it_was() {
    const WORDS: &str = "HTTP 500: 12 ms, \"quoted\": the provider failed: twice";
    let words = || WORDS.to_owned();
    for (error, text) in [
        (
            ModelError::Credentials(words()),
            "the provider refused the credentials; check the api_key of the provider: {W}",
        ),
        (
            ModelError::Credentials(String::new()),
            "the provider refused the credentials; check the api_key of the provider",
        ),
        (
            ModelError::Forbidden(words()),
            "the provider does not let the request in, for a reason that another key would not change: {W}",
        ),
        (ModelError::BadRequest(words()), "the provider refused the request: {W}"),
        (ModelError::QuotaExhausted(words()), "the provider's quota is used up: {W}"),
        (ModelError::UnknownModel(words()), "the provider does not know the model: {W}"),
        (ModelError::ContextTooLong(words()), "the prompt is too long for the model: {W}"),
        (ModelError::ContentFiltered(words()), "the provider's content filter withheld the answer: {W}"),
        (ModelError::RateLimited(words()), "the provider asked to slow down: {W}"),
        (ModelError::RateLimited(String::new()), "the provider asked to slow down"),
        (ModelError::Server(words()), "the provider failed: {W}"),
        (ModelError::Unreachable(words()), "the provider cannot be reached: {W}"),
        (ModelError::CutShort(words()), "the connection broke before the answer was complete: {W}"),
        (
            ModelError::TimedOut(Phase::Connect),
            "the provider took too long: no connection within connect_timeout_ms",
        ),
        (
            ModelError::TimedOut(Phase::FirstToken),
            "the provider took too long: no beginning of an answer within first_token_timeout_ms",
        ),
        (
            ModelError::TimedOut(Phase::Read),
            "the provider took too long: nothing more of the answer within read_timeout_ms",
        ),
        (
            ModelError::TimedOut(Phase::Total),
            "the provider took too long: no complete answer within total_timeout_ms",
        ),
        (ModelError::TooLarge(4_194_304), "the answer is larger than 4194304 bytes"),
        (ModelError::BadResponse(words()), "the provider's answer is not usable: {W}"),
        (ModelError::Unfit(words()), "the provider's answer is no answer to this request: {W}"),
        (
            ModelError::LimitUsedUp(words()),
            "the token limit was used up before any text came, by reasoning or by nothing that can be read; raise max_tokens, or ask a model that reasons less: {W}",
        ),
    ] {
        for should_retry in [None, Some(true), Some(false)] {
            let facts = CallFacts { should_retry, ..CallFacts::default() };
            let failure = ModelFailure { error: error.clone(), usage: None, facts };
            let text = text.replace("{W}", WORDS);
            let recorded = attempt(&GenerationError::Failed(failure.clone()), &text);
            let Some(FailedAttempt::Failed(again)) = failed_attempt(&recorded) else { panic!("{error}") };
            assert_eq!((&again.error, again.fault()), (&failure.error, failure.fault()), "{error}");
        }
    }
}

#[test]
fn what_prevented_a_call_comes_back_as_it_was() {
    let wait = Duration::from_millis(12_345);
    let open = |cause: Option<&str>| Refused::BreakerOpen(wait, cause.map(Into::into));
    let total = Duration::from_mins(10);
    for (error, text, expected) in [
        (
            GenerationError::Refused(open(None)),
            "its breaker is open for another 12345 ms",
            FailedAttempt::Refused(open(None)),
        ),
        (
            GenerationError::Refused(open(Some("503 (x) for another 9 ms"))),
            "its breaker is open (503 (x) for another 9 ms) for another 12345 ms",
            FailedAttempt::Refused(open(Some("503 (x) for another 9 ms"))),
        ),
        (
            GenerationError::Refused(Refused::Paced(wait)),
            "it asked to wait another 12345 ms",
            FailedAttempt::Refused(Refused::Paced(wait)),
        ),
        (
            GenerationError::OwnRateLimit(wait),
            "the rate limit has no room for another 12345 ms",
            FailedAttempt::NoRoom(wait),
        ),
        (
            GenerationError::HeldTooLong { wait, total },
            "rate limits have held the request back for the 600000 ms that generation.rate_total_ms allows in all; raise \
             requests_per_minute or tokens_per_minute; the next wait would be 12345 ms",
            FailedAttempt::NoRoom(wait),
        ),
        (
            GenerationError::OverRateLimit { tokens: 9, limit: 8 },
            "the request is estimated at 9 tokens, more than the limit of 8 in a minute allows at all",
            FailedAttempt::DoesNotFit,
        ),
        (
            GenerationError::DoesNotFit { needed: 9, answer: 1, window: 8 },
            "the prompt is too long for the model: 9 tokens with an answer of 1 exceed its window of 8",
            FailedAttempt::DoesNotFit,
        ),
    ] {
        assert_eq!(failed_attempt(&attempt(&error, text)), Some(expected));
    }
}

#[test]
fn every_failure_of_a_source_comes_back_as_it_was() {
    const WORDS: &str = "the connection was refused (os error 111)";
    let call = FetchCall {
        source: "orders".to_owned(),
        url: String::new(),
        method: Method::Get,
        headers: Vec::new(),
        body: None,
        timeout: Duration::from_secs(2),
        max_bytes: 65_536,
        traceparent: TraceParent::root(1, 1),
        room: AnswerRoom::default(),
    };
    let words = || WORDS.to_owned();
    let after = Some(Duration::from_secs(9));
    let record = |code: &str, status, text: &str, hint: Option<Duration>| FailedCall {
        url: 0,
        duration_ms: Millis::default(),
        error: SourceError { code: code.to_owned(), message: format!("orders: {text}"), http_status: status },
        error_detail: None,
        retry_after_ms: hint.map(|hint| u64::try_from(hint.as_millis()).unwrap()),
        retry_in_ms: None,
        jitter: None,
    };
    for (error, text) in [
        (FetchError::TimedOut(call.timeout), "no complete answer within 2000 ms"),
        (FetchError::Unreachable(words()), "cannot be reached: {W}"),
        (FetchError::NotFound(410), "has no such document (HTTP 410)"),
        (FetchError::RateLimited { retry_after: after }, "asked to slow down (HTTP 429)"),
        (FetchError::Server { status: 503, retry_after: after }, "failed (HTTP 503)"),
        (FetchError::Server { status: 408, retry_after: None }, "failed (HTTP 408)"),
        (FetchError::Refused(403), "refused the request (HTTP 403)"),
        (
            FetchError::TooLarge(call.max_bytes),
            "answered with more than 65536 bytes; raise the source's max_bytes if that is legitimate",
        ),
        (FetchError::NotJson(words()), "answered with something that is not JSON: {W}"),
        (FetchError::Misconfigured(words()), "cannot be asked: {W}"),
    ] {
        let hint = match error.fault() {
            Fault::Transient { wait_at_least } => wait_at_least,
            Fault::Permanent | Fault::Unknown => None,
        };
        let recorded = record(error.code(), error.http_status(), &text.replace("{W}", WORDS), hint);
        assert_eq!(failed_fetch(&recorded, &call), Ok(error));
    }
    let wait = Duration::from_millis(77);
    for (code, text, refused) in [
        (
            "breaker_open",
            "its breaker is open (failed (HTTP 503)) for another 77 ms",
            Refused::BreakerOpen(wait, Some("failed (HTTP 503)".into())),
        ),
        ("rate_limited", "it asked to wait another 77 ms", Refused::Paced(wait)),
    ] {
        assert_eq!(failed_fetch(&record(code, None, text, None), &call), Err(refused));
    }
}

#[test]
fn the_wording_of_this_version_is_read_too() {
    // An older worker that takes up an attempt log passes the text on, and not the parts.
    let error = ModelError::TooLarge(4_194_304);
    let failure = ModelFailure { error: error.clone(), usage: None, facts: CallFacts::default() };
    let recorded = attempt(&GenerationError::Failed(failure.clone()), &error.to_string());
    assert_eq!(failed_attempt(&recorded), Some(FailedAttempt::Failed(failure)));
}
