//! Streams of real providers, recorded by others (`provider_traffic`): how they are cut makes no difference. What
//! comes out is compared with the records where they are served over sockets, in `tests/wire/http/recorded.rs`.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use reqwest::Url;
use serde_json::{Value, json};
use throughline_actors::ports::model::{Delta, DeltaSink, NoSink};
use tokio::time::Instant;

use super::dialect::Dialect;
use super::forwarder::Forwarder;
use super::stream::Reader;
use super::{ProviderKind, dialect};
use crate::http_client::credential::Redactor;

const MAX_BYTES: usize = 8 << 20;

/// Hears everything.
#[derive(Default)]
struct Collector(Mutex<(String, String)>);

impl DeltaSink for Collector {
    fn delta(&self, delta: Delta<'_>) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match delta {
            Delta::Text(text) => heard.0.push_str(text),
            Delta::Reasoning(text) => heard.1.push_str(text),
            Delta::Void => heard.0.clear(),
        }
    }
}

fn cases() -> Option<Vec<Value>> {
    let corpora = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let Ok(file) = std::fs::File::open(corpora.join("provider_traffic/cases.jsonl.gz")) else {
        eprintln!("left out: no provider_traffic (set THROUGHLINE_CORPORA)");
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn kind(family: &str) -> Option<(ProviderKind, &'static str)> {
    Some(match family {
        "openai_chat" => (ProviderKind::OpenAi, "http://h/v1"),
        "anthropic_messages" => (ProviderKind::Anthropic, "http://h"),
        "gemini_generate" => (ProviderKind::Gemini, "http://h"),
        _ => return None,
    })
}

fn body(case: &Value) -> Vec<u8> {
    match case["sse_raw_b64"].as_str() {
        Some(encoded) => base64::engine::general_purpose::STANDARD.decode(encoded).unwrap(),
        None => case["body_text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// All that comes of a stream in pieces of this size.
fn read(dialect: &dyn Dialect, body: &[u8], size: usize) -> String {
    let redactor = Arc::new(Redactor::default());
    let collector = Collector::default();
    let mut forwarder = Forwarder::new(&collector, &redactor, Instant::now());
    let mut assembly = dialect.assembly(MAX_BYTES);
    let mut reader = Reader::new(assembly.as_mut(), &mut forwarder, &redactor, MAX_BYTES, false);
    let pushed = body.chunks(size).try_for_each(|piece| reader.push(piece).map(drop));
    let ended = pushed.and_then(|()| reader.end());
    forwarder.finish();
    let raw = std::mem::take(assembly.raw());
    let heard = collector.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    if ended.is_ok() {
        // What was heard is what the whole form says.
        let parsed = dialect.read(&raw).unwrap();
        let text = if parsed.text.is_empty() { parsed.refusal.unwrap_or_default() } else { parsed.text };
        assert_eq!(heard, (text, parsed.reasoning));
    }
    format!("{ended:?} {heard:?} {raw}")
}

/// Every odd size up to 15, and some beyond.
fn sizes() -> impl Iterator<Item = usize> {
    (1..=15).step_by(2).chain([63, 509, 4093])
}

#[test]
fn the_size_of_the_pieces_makes_no_difference() {
    let Some(cases) = cases() else { return };
    let mut streams = 0;
    for case in cases.iter().filter(|case| case["body_kind"] == "sse") {
        let Some((kind, base_url)) = kind(case["family"].as_str().unwrap()) else { continue };
        let dialect = dialect(kind, Url::parse(base_url).unwrap()).unwrap();
        let body = body(case);
        let whole = read(dialect.as_ref(), &body, body.len());
        for size in sizes() {
            assert_eq!(read(dialect.as_ref(), &body, size), whole, "{} in pieces of {size}", case["id"]);
        }
        streams += 1;
    }
    assert_eq!(streams, 116);
}

/// A small generator of numbers, the same at every run (Steele, Lea and Flood's `SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }

    /// Puts something else in the place of a random part.
    fn spoil(&mut self, value: &mut Value) {
        let children: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            Value::Object(fields) => fields.values_mut().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        let count = children.len();
        let chosen = if count == 0 { None } else { children.into_iter().nth(self.below(count)) };
        match chosen {
            Some(child) if self.below(6) > 0 => self.spoil(child),
            Some(_) | None => {
                let others = [
                    json!(null),
                    json!(-1.5),
                    json!("x"),
                    json!([]),
                    json!([[1]]),
                    json!({}),
                    json!({"x": {}}),
                ];
                *value = others[self.below(others.len())].clone();
            }
        }
    }
}

/// Whatever a provider sends, in whatever place: an answer or an error, never a panic.
#[test]
fn nothing_that_a_stream_or_an_answer_may_hold_is_a_panic() {
    let openai = [
        json!({"id": "1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a", "reasoning": "b"}}]}),
        json!({"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "c"}], "function_call":
            {"name": "f", "arguments": "{"}}}]}),
        json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f",
            "arguments": "{"}}], "annotations": [{"a": 1}]}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
    ];
    let anthropic = [
        json!({"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {}}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "f"}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
    ];
    let gemini = [
        json!({"candidates": [{"content": {"parts": [{"text": "a", "thought": true}], "role": "model"}, "index": 0}]}),
        json!({"candidates": [{"content": {"parts": [{"text": "b"}, {"functionCall": {"name": "f", "args": {}}}]}}]}),
        json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 1}}),
    ];
    let streams: [(_, &[Value]); 3] = [
        (ProviderKind::OpenAi, &openai),
        (ProviderKind::Anthropic, &anthropic),
        (ProviderKind::Gemini, &gemini),
    ];
    for (kind, events) in streams {
        let dialect = dialect(kind, Url::parse("http://h").unwrap()).unwrap();
        for seed in 0..20_000 {
            let mut random = Random(seed);
            let redactor = Arc::new(Redactor::default());
            let mut forwarder = Forwarder::new(&NoSink, &redactor, Instant::now());
            let mut assembly = dialect.assembly(MAX_BYTES);
            let mut events = events.to_vec();
            for _ in 0..=random.below(3) {
                let spoiled = random.below(events.len());
                random.spoil(&mut events[spoiled]);
            }
            // What is no object is refused before it comes here.
            for event in events.into_iter().filter(Value::is_object) {
                if assembly.json(event, &mut forwarder).is_err() {
                    break;
                }
            }
            let mut raw = assembly.raw().clone();
            for _ in 0..3 {
                drop((dialect.read(&raw), dialect.usage(&raw)));
                random.spoil(&mut raw);
            }
        }
    }
}
