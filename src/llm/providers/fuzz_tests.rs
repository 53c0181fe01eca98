//! Arbitrary bytes and arbitrary documents in the place of answers, events, errors and headers: nothing panics, nothing
//! waits beyond its cap, and what is kept stays within its limit.
//!
//! Ten thousand cases each; as many as `PROPTEST_CASES` says, if that is more.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use serde_json::{Map, Value, json};
use throughline_actors::policy::announced::{Announced, Need};
use throughline_actors::ports::model::NoSink;
use throughline_schemas::Timestamp;
use tokio::time::Instant;

use super::error_body::{ProviderError, failure_in};
use super::forwarder::Forwarder;
use super::stream::Reader;
use super::{ProviderKind, dialect, document, response_headers, usage};
use crate::http_client::coding::Unpacker;
use crate::http_client::credential::Redactor;

const CASES: u32 = 10_000;
const MAX_BYTES: usize = 4_096;
const KINDS: [ProviderKind; 3] = [ProviderKind::OpenAi, ProviderKind::Anthropic, ProviderKind::Gemini];

fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value)) {
    let config =
        Config { cases: Config::default().cases.max(CASES), failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(strategy, |value| {
            test(value);
            Ok(())
        })
        .unwrap();
}

/// Words that the protocols know, so that documents get past the first look.
const NAMES: [&str; 36] = [
    "choices",
    "delta",
    "message",
    "content",
    "text",
    "finish_reason",
    "index",
    "tool_calls",
    "function",
    "arguments",
    "id",
    "name",
    "type",
    "usage",
    "prompt_tokens",
    "completion_tokens",
    "error",
    "code",
    "errors",
    "metadata",
    "raw",
    "candidates",
    "parts",
    "finishReason",
    "usageMetadata",
    "content_block",
    "stop_reason",
    "role",
    "refusal",
    "base_resp",
    "status_code",
    "detail",
    "cost",
    "thought",
    "promptFeedback",
    "blockReason",
];

fn documents() -> impl Strategy<Value = Value> {
    let texts = prop_oneof![
        proptest::sample::select(&NAMES[..]).prop_map(Value::from),
        proptest::sample::select(
            &[
                "text_delta",
                "message_start",
                "message_delta",
                "content_block_start",
                "content_block_delta",
                "stop",
                "STOP",
                "{\"error\":",
                "<think>",
                "</think>",
                "```",
                "\u{10F83D}\u{10FA00}"
            ][..]
        )
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let leaves = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        texts,
    ];
    leaves.prop_recursive(6, 48, 6, |inner| {
        let names = prop_oneof![
            proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
            ".{0,6}".prop_map(String::from)
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((names, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// All that comes of a stream; how much of it is kept.
fn read_stream(kind: ProviderKind, body: &[u8], size: usize) -> usize {
    let dialect = dialect(kind, Url::parse("http://h").unwrap()).unwrap();
    let redactor = Arc::new(Redactor::default());
    let mut forwarder = Forwarder::new(&NoSink, &redactor, Instant::now());
    let mut assembly = dialect.assembly(MAX_BYTES);
    let mut reader = Reader::new(assembly.as_mut(), &mut forwarder, &redactor, MAX_BYTES, false);
    let pushed = body.chunks(size.max(1)).try_for_each(|piece| reader.push(piece).map(drop));
    let _any = pushed.and_then(|()| reader.end());
    let (text, reasoning) = forwarder.finish();
    let raw = std::mem::take(assembly.raw());
    let _any = (dialect.usage(&raw), usage::stated_cost(&raw));
    if let Ok(parsed) = dialect.read(&raw) {
        let _any = parsed.without_thinking().text.len();
    }
    text.len() + reasoning.len()
}

#[test]
fn arbitrary_bytes_are_read_as_streams_documents_and_errors() {
    let bodies = (proptest::collection::vec(any::<u8>(), 0..200), 1..9_usize, 100..600_u16);
    run(&bodies, |(body, size, status)| {
        for kind in KINDS {
            assert!(read_stream(kind, &body, size) <= MAX_BYTES);
        }
        let redactor = Redactor::default();
        let _any = document::read(&body, &redactor, |_| true);
        if let Ok(status) = StatusCode::from_u16(status) {
            assert!(ProviderError::read(&body, &redactor).classify(status).to_string().len() < 2_000);
        }
        let mut unpacker = Unpacker::new(&HeaderMap::new());
        for piece in body.chunks(size) {
            let Ok(out) = unpacker.push(piece, MAX_BYTES) else { return };
            assert!(out.len() <= MAX_BYTES);
        }
        let _any = unpacker.finish(MAX_BYTES);
    });
}

#[test]
fn arbitrary_documents_are_read_as_answers_events_and_errors() {
    let cases = (proptest::collection::vec(documents(), 1..4), 1..40_usize, 400..600_u16);
    run(&cases, |(documents, size, status)| {
        let redactor = Redactor::default();
        let status = StatusCode::from_u16(status).unwrap();
        let mut stream = String::new();
        assert!(ProviderError::of(&documents[0], &redactor).classify(status).to_string().len() < 2_000);
        for value in &documents {
            let _any = failure_in(value, &redactor);
            write!(stream, "data: {value}\n\n").unwrap();
            for kind in KINDS {
                let dialect = dialect(kind, Url::parse("http://h").unwrap()).unwrap();
                let _any = (dialect.usage(value), usage::stated_cost(value), dialect.is_piece(value, true));
                let _any = dialect.read(value).map(super::parsed_answer::ParsedAnswer::without_thinking);
            }
        }
        for kind in KINDS {
            assert!(read_stream(kind, stream.as_bytes(), size) <= MAX_BYTES);
        }
    });
}

#[test]
fn no_header_makes_anybody_wait_beyond_the_cap() {
    const DAY: Duration = Duration::from_hours(24);
    let values = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        "[0-9]{1,25}(\\.[0-9]{0,5})?(e[0-9]{1,4})?(ns|us|ms|s|m|h|d)?",
        "(PT?)?[0-9]{1,20}[DHMS]([0-9]{1,3}[HMS])?",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|\\+[0-9]{2}:[0-9]{2})",
        "[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} (GMT|\\+0200)",
        "[ -~]{0,24}",
    ];
    let names = proptest::sample::select(
        &[
            "retry-after",
            "retry-after-ms",
            "x-ratelimit-reset-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-limit-requests",
            "x-ratelimit-renewalperiod-requests",
            "x-ratelimit-reset-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-limit-tokens",
            "anthropic-ratelimit-input-tokens-reset",
            "anthropic-ratelimit-input-tokens-remaining",
            "ratelimit-reset",
            "ratelimit-remaining",
            "x-ratelimit-reset",
        ][..],
    );
    let headers = proptest::collection::vec((names, values), 0..8);
    run(&(headers, any::<i64>(), any::<bool>()), |(pairs, now, is_paced)| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.append(name, value);
            }
        }
        let status = if is_paced { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        let now = Timestamp::from_unix_ms(now.clamp(-60_000_000_000_000, 250_000_000_000_000));
        let facts = response_headers::of(&headers, status, &Redactor::default(), now);
        let Some(allowances) = facts.allowances else { return };
        let (mut announced, instant) = (Announced::default(), Instant::now());
        let ticket = announced.take(Need::default());
        announced.update(ticket, &allowances, instant);
        for _ in 0..3 {
            let need = Need { input: 1_000, output: 1_000 };
            assert!(announced.wait(need, instant) <= DAY, "{headers:?}");
            announced.take(need);
        }
    });
}
