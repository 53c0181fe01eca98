//! Ten thousand good answers and ten thousand bad ones, in every form that servers and gateways give them: none of the
//! good ones is refused, none of the bad ones accepted, and none of those asked again that cannot succeed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Response as HttpResponse;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use reqwest::{Body, Response, Url};
use serde_json::{Value, json};
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{ModelAnswer, ModelError, ModelFailure, ModelRequest, NoSink};
use throughline_actors::ports::{Classify, Fault};
use throughline_schemas::FinishReason;

use super::call::Provider;
use super::{CallLimits, ProviderKind, ProviderSettings, ProviderSpec, dialect};
use crate::system::SystemClock;

const CASES: u64 = 10_000;
const KINDS: [ProviderKind; 3] = [ProviderKind::OpenAi, ProviderKind::Anthropic, ProviderKind::Gemini];

/// A small generator of numbers, the same at every run (Steele, Lea and Flood's `SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// An answer on its way, before it has a form.
#[derive(Debug)]
struct Made {
    kind: ProviderKind,
    text: &'static str,
    finish: &'static str,
    reason: FinishReason,
}

fn provider(kind: ProviderKind) -> Provider {
    let url = Url::parse("http://h").unwrap();
    let spec = ProviderSpec {
        name: "p".to_owned(),
        kind,
        base_url: url.to_string(),
        keys: Vec::new(),
        options: HashMap::new(),
        limits: CallLimits { read: Duration::from_millis(200), ..CallLimits::default() },
        settings: ProviderSettings::default(),
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    Provider::new(spec, dialect(kind, url).unwrap(), false, clock).unwrap()
}

fn good(random: &mut Random) -> Made {
    use FinishReason::{ContentFilter, Length, Other, Stop};

    let kind = random.one_of(&KINDS);
    let text = random.one_of(&[
        "It ships tomorrow.",
        "0",
        "Grüße \u{1F600} \u{200B}!",
        "{\"error\": \"none\", \"code\": 500}",
        "data: [DONE]\n\nevent: error",
        "The rate limit was exceeded, the model was not found.",
        "Close it with `</think>`.",
        "a\r\nb\u{2028}c\td \"quoted\" \\ud83d",
    ]);
    let (finish, reason) = match kind {
        ProviderKind::OpenAi => random.one_of(&[
            ("stop", Stop),
            ("STOP", Stop),
            ("eos_token", Stop),
            ("end_turn", Stop),
            ("length", Length),
            ("max_tokens", Length),
            ("model_length", Length),
            ("content_filter", ContentFilter),
            ("sensitive", ContentFilter),
            ("something_new", Other),
        ]),
        ProviderKind::Anthropic => random.one_of(&[
            ("end_turn", Stop),
            ("stop_sequence", Stop),
            ("stop", Stop),
            ("max_tokens", Length),
            ("model_context_window_exceeded", Length),
            ("pause_turn", Other),
        ]),
        ProviderKind::Gemini => random.one_of(&[
            ("STOP", Stop),
            ("MAX_TOKENS", Length),
            ("SAFETY", ContentFilter),
            ("OTHER", Other),
        ]),
    };
    Made { kind, text, finish, reason }
}

/// A whole answer, with what others put beside it.
fn whole(made: &Made, random: &mut Random) -> Value {
    let Made { kind, text, finish, .. } = made;
    let mut answer = match kind {
        ProviderKind::OpenAi => json!({"id": "c", "object": "chat.completion", "choices": [{"index": 0,
            "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}),
        ProviderKind::Anthropic => json!({"id": "m", "type": "message", "role": "assistant",
            "content": [{"type": "text", "text": text}], "stop_reason": finish, "stop_sequence": null,
            "usage": {"input_tokens": 10, "output_tokens": 5}}),
        ProviderKind::Gemini => {
            json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]},
            "finishReason": finish, "index": 0}], "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}})
        }
    };
    let beside = [
        ("error", json!(null)),
        ("error", json!({})),
        ("error", json!({"code": 0, "message": ""})),
        ("errors", json!([])),
        ("success", json!(true)),
        ("base_resp", json!({"status_code": 0, "status_msg": "success"})),
        ("code", json!(200)),
        ("warning", json!("the quota is nearly used up")),
    ];
    if random.chance(2) {
        let (name, value) = beside[random.below(beside.len())].clone();
        answer[name] = value;
    }
    answer
}

/// The same as the events of a stream, of which those may be missing that are missing at some servers.
fn events(made: &Made, random: &mut Random) -> Vec<(Option<&'static str>, String)> {
    let Made { kind, text, finish, .. } = made;
    let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
    let (front, back) = text.split_at(half);
    let mut events = match kind {
        ProviderKind::OpenAi => {
            let chunk = |delta: Value, finish: Value| {
                json!({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta,
                    "finish_reason": finish}]})
            };
            vec![
                chunk(json!({"role": "assistant", "content": front}), Value::Null),
                chunk(json!({"content": back}), Value::Null),
                chunk(json!({}), json!(finish)),
                json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}),
            ]
        }
        ProviderKind::Anthropic => {
            let index = random.below(3);
            let delta = |text: &str| json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}});
            let mut events = vec![
                json!({"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant",
                    "content": [], "stop_reason": null, "usage": {"input_tokens": 10, "output_tokens": 1}}}),
                json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}),
                delta(front),
                delta(back),
                json!({"type": "content_block_stop", "index": index}),
                json!({"type": "message_delta", "delta": {"stop_reason": finish}, "usage": {"output_tokens": 5}}),
                json!({"type": "message_stop"}),
            ];
            if random.chance(4) {
                events.remove(4);
            }
            events
        }
        ProviderKind::Gemini => {
            let chunk = |text: &str, finish: Value| {
                json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0,
                    "finishReason": finish}], "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}})
            };
            vec![chunk(front, Value::Null), chunk(back, json!(finish))]
        }
    };
    let may_lack = match kind {
        ProviderKind::OpenAi | ProviderKind::Anthropic => 1,
        ProviderKind::Gemini => 0,
    };
    if may_lack > 0 && random.chance(4) {
        events.pop();
    }
    let named = *kind == ProviderKind::Anthropic && !random.chance(4);
    let name = |event: &Value| match event["type"].as_str() {
        Some("message_start") if named => Some("message_start"),
        Some("content_block_delta") if named => Some("content_block_delta"),
        Some(_) | None => None,
    };
    let mut events: Vec<_> = events.into_iter().map(|event| (name(&event), event.to_string())).collect();
    for _ in 0..random.below(3) {
        let sign = random.one_of(&[
            (None, "null"),
            (None, "{}"),
            (None, "[]"),
            (None, "\"ping\""),
            (Some("ping"), "keep-alive"),
            (Some("heartbeat"), "1700000000"),
            (Some("ping"), "{\"type\": \"ping\"}"),
            (None, ": still there"),
        ]);
        let at = random.below(events.len() + 1);
        events.insert(at, (sign.0, sign.1.to_owned()));
    }
    if random.chance(2) {
        events.push((None, "[DONE]".to_owned()));
    }
    events
}

fn framed(events: &[(Option<&'static str>, String)], random: &mut Random) -> String {
    let ending = random.one_of(&["\n", "\r\n", "\r"]);
    let mut text = random.one_of(&["", "\u{FEFF}", "\n\n", ": wait\n\n"]).replace('\n', ending);
    for (name, data) in events {
        if random.chance(6) {
            write!(text, ": ping{ending}{ending}").unwrap();
        }
        if let Some(name) = name {
            write!(text, "event: {name}{ending}").unwrap();
        }
        let space = random.one_of(&["", " "]);
        write!(text, "data:{space}{data}{ending}{ending}").unwrap();
    }
    text
}

/// A body with its labels, cut in pieces.
struct Wire {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    pieces: Vec<Vec<u8>>,
}

fn on_the_wire(status: u16, body: &[u8], random: &mut Random) -> Wire {
    let mut headers = Vec::new();
    let label = random.one_of(&[
        Some("application/json"),
        Some("text/event-stream"),
        Some("text/plain; charset=utf-8"),
        Some("application/octet-stream"),
        Some("application/x-ndjson"),
        Some("text/html"),
        None,
    ]);
    headers.extend(label.map(|label| ("content-type", label)));
    let gzip = |body: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    };
    let (coding, packed) = match random.below(8) {
        0 => (Some("gzip"), gzip(body)),
        1 => (None, gzip(body)),
        2 => (Some("gzip"), body.to_vec()),
        3 => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            (Some("deflate"), encoder.finish().unwrap())
        }
        4 => {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            (Some("deflate"), encoder.finish().unwrap())
        }
        _ => (None, body.to_vec()),
    };
    headers.extend(coding.map(|coding| ("content-encoding", coding)));
    let reset = random.one_of(&[
        "1e19",
        "18446744073709551615",
        "2099-01-01T00:00:00Z",
        "-1",
        "soon",
        "6m0s",
        "1796040003",
    ]);
    headers.push(("x-ratelimit-reset-requests", reset));
    let size = random.one_of(&[1, 7, 61, 1021, usize::MAX]).min(packed.len().max(1));
    Wire { status, headers, pieces: packed.chunks(size).map(<[u8]>::to_vec).collect() }
}

fn response(wire: Wire) -> Response {
    let mut response = HttpResponse::builder().status(wire.status);
    for (name, value) in wire.headers {
        response = response.header(name, value);
    }
    let pieces = wire.pieces.into_iter().map(Ok::<_, std::io::Error>);
    response.body(Body::wrap_stream(futures_util::stream::iter(pieces))).unwrap().into()
}

fn asked(stream: bool) -> ModelRequest {
    ModelRequest { stream, ..request("p") }
}

async fn outcome(provider: &Provider, wire: Wire, stream: bool) -> Result<ModelAnswer, ModelFailure> {
    provider.receive_for_test(&asked(stream), response(wire), &NoSink).await
}

#[tokio::test]
async fn no_good_answer_is_refused_in_whatever_form_it_comes() {
    let providers = KINDS.map(provider);
    for seed in 0..CASES {
        let mut random = Random(seed);
        let made = good(&mut random);
        let body = match random.below(6) {
            0 | 1 => whole(&made, &mut random).to_string(),
            2 => format!("[{}]", whole(&made, &mut random)),
            3 => {
                // Without frames, in lines or in an array.
                let events = events(&made, &mut random);
                let events: Vec<_> = events
                    .iter()
                    .map(|(_, data)| data.as_str())
                    .filter(|data| data.starts_with("{\""))
                    .collect();
                if random.chance(2) { events.join("\n") } else { format!("[{}]", events.join(",\n")) }
            }
            _ => framed(&events(&made, &mut random), &mut random),
        };
        let stream = random.chance(2);
        let body = if random.chance(5) {
            body.replacen("\"index\":0", "\"index\":0,\"score\":-Infinity", 1)
        } else {
            body
        };
        let wire = on_the_wire(200, body.as_bytes(), &mut random);
        let at = KINDS.iter().position(|kind| *kind == made.kind).unwrap();
        let labels = format!("{:?}", wire.headers);
        let result = outcome(&providers[at], wire, stream).await;
        let answer = result.unwrap_or_else(|failure| panic!("{seed}: {failure}\n{made:?} {labels}\n{body}"));
        assert_eq!(
            (answer.text.as_str(), answer.finish_reason),
            (made.text, made.reason),
            "{seed} {labels}\n{body}"
        );
    }
}

/// A failure, in words and names of which nobody is to know them before.
struct Bad {
    status: u16,
    error: Value,
    /// Whether it could succeed if it were asked again.
    again: bool,
}

fn bad(random: &mut Random) -> Bad {
    let number = 1_000 + random.below(200_000);
    let limit = random.one_of(&[2048, 4096, 8192, 128_000]);
    let too_long = [
        format!("The prompt has {number} tokens, more than the {limit} that this model can take"),
        format!("maximum context length is {limit} tokens, got {number}"),
        format!("input is too long: {number} > {limit} tokens"),
        format!("Context window of {limit} exceeded"),
        format!("messages exceed the limit of {limit} tokens"),
    ];
    let no_credit = [
        "Your balance is insufficient, please recharge".to_owned(),
        "no credits left: your credit balance is exhausted".to_owned(),
        "You have reached your monthly spending limit".to_owned(),
        "insufficient funds in your account".to_owned(),
    ];
    let transient = [
        "The engine is overloaded, try again later".to_owned(),
        "upstream error: connection reset".to_owned(),
        "Internal server error".to_owned(),
        "The operation was cancelled".to_owned(),
    ];
    let (words, status, again) = match random.below(3) {
        0 => (random.below(too_long.len()), 0, false),
        1 => (random.below(no_credit.len()), 1, false),
        _ => (random.below(transient.len()), 2, true),
    };
    let (words, status) = match status {
        0 => (too_long[words].clone(), random.one_of(&[200, 400, 413, 422, 500])),
        1 => (no_credit[words].clone(), random.one_of(&[200, 400, 401, 402, 403, 429, 500])),
        _ => (transient[words].clone(), random.one_of(&[200, 408, 424, 499, 500, 502, 503, 529])),
    };
    let code: Value =
        random.one_of::<fn() -> Value>(&[|| json!(null), || json!("E42"), || json!(77_001), || json!("")])();
    let error = match random.below(9) {
        0 => json!({"error": {"message": words, "code": code}}),
        1 => json!({"error": words}),
        2 => json!({"object": "error", "message": words, "type": "x", "code": code}),
        3 => json!({"type": "error", "error": {"type": "x", "message": words}}),
        4 => json!({"success": false, "errors": [{"code": code, "message": words}]}),
        5 => {
            json!({"error": {"message": "Provider returned error", "metadata": {"raw": json!({"msg": words}).to_string()}}})
        }
        6 => json!({"base_resp": {"status_code": 2999, "status_msg": words}, "choices": null}),
        7 => json!([{"error": {"message": words, "status": "X"}}]),
        _ => json!({"code": 30_001, "msg": words, "data": null}),
    };
    Bad { status, error, again }
}

#[tokio::test]
async fn no_bad_answer_is_accepted_and_none_is_asked_again_that_cannot_succeed() {
    let providers = KINDS.map(provider);
    for seed in 0..CASES {
        let mut random = Random(seed.wrapping_add(1 << 32));
        let made = good(&mut random);
        let Bad { status, error, again } = bad(&mut random);
        let text = error.to_string();
        let first = events(&made, &mut random).into_iter().take(1).collect::<Vec<_>>();
        let body = match random.below(4) {
            // In the midst of a stream that began well; as an event, or named as one.
            0 if status == 200 => {
                let name = random.one_of(&[None, Some("error")]);
                framed(&[first, vec![(name, text)]].concat(), &mut random)
            }
            1 if status == 200 => framed(&[(random.one_of(&[None, Some("error")]), text)], &mut random),
            2 => format!("\u{FEFF}{text}\n"),
            _ => text,
        };
        let stream = random.chance(2);
        let wire = on_the_wire(status, body.as_bytes(), &mut random);
        let at = KINDS.iter().position(|kind| *kind == made.kind).unwrap();
        let labels = format!("{:?}", wire.headers);
        let failure = match outcome(&providers[at], wire, stream).await {
            Err(failure) => failure,
            Ok(answer) => panic!("{seed}: it was accepted: {answer:?}\n{body}"),
        };
        let may_repeat = !matches!(failure.fault(), Fault::Permanent);
        assert_eq!(may_repeat, again, "{seed} {status} {labels}: {failure}\n{body}");
    }
}

#[tokio::test]
async fn half_an_answer_is_none_in_whatever_form_it_comes() {
    let providers = KINDS.map(provider);
    for seed in 0..CASES / 10 {
        let mut random = Random(seed.wrapping_add(1 << 33));
        let mut made = good(&mut random);
        let fails = random.one_of(&[
            "error",
            "network_error",
            "abort",
            "insufficient_system_resource",
            "upstream_timeout",
        ]);
        made.finish = fails;
        let body = if random.chance(2) {
            whole(&made, &mut random).to_string()
        } else {
            framed(&events(&made, &mut random), &mut random)
        };
        let wire = on_the_wire(200, body.as_bytes(), &mut random);
        let at = KINDS.iter().position(|kind| *kind == made.kind).unwrap();
        let failure = outcome(&providers[at], wire, random.chance(2)).await.unwrap_err();
        assert!(matches!(failure.error, ModelError::Server(_)), "{seed}: {failure}\n{body}");
        assert!(failure.to_string().contains(fails), "{failure}");
    }
}
