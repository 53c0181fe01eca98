//! All of llmock's faults.

use serde_json::{Value, json};

use super::{ANSWER, Dialect, MAX_ATTEMPTS};

/// One workflow under faults.
pub(super) struct Case {
    pub name: String,
    pub behaviors: Vec<Value>,
    /// How many calls are made.
    pub calls: usize,
    pub end: End,
}

pub(super) enum End {
    /// This text is saved.
    Saved(&'static str, &'static str),
    /// The workflow fails with this code.
    Failed(&'static str),
}

fn case(name: impl Into<String>, behaviors: Vec<Value>, calls: usize, end: End) -> Case {
    Case { name: name.into(), behaviors, calls, end }
}

const SAVED: End = End::Saved(ANSWER, "stop");

/// Faults of whole answers, which streams have, too.
pub(super) fn of_answers() -> Vec<Case> {
    let fail = |status: u16| json!({"type": "fail", "status": status});
    let paced = |status: u16, seconds: f64| json!({"type": "fail", "status": status, "retry_after": seconds});
    let mut cases = vec![case("healthy", vec![json!({"type": "reply"})], 1, SAVED)];
    // llmock asks for one second of patience where it is not told otherwise: 429, 503, 504 and 529.
    for status in [408, 409, 425, 429, 500, 501, 502, 503, 504, 529] {
        cases.push(case(format!("once-{status}"), vec![fail(status)], 2, SAVED));
    }
    for status in [400, 401, 402, 403, 404, 405, 413, 422, 451] {
        cases.push(case(format!("refused-{status}"), vec![fail(status)], 1, End::Failed("model_rejected")));
    }
    cases.push(case("hint-0.3", vec![paced(429, 0.3)], 2, SAVED));
    cases.push(case("hint-2.5", vec![paced(429, 2.5)], 2, SAVED));
    cases.push(case("hints", vec![paced(429, 0.6), paced(503, 0.2), paced(529, 0.9)], 4, SAVED));
    cases.push(case("backoff", vec![fail(500), fail(502), fail(500)], 4, SAVED));
    let for_ever = |mut fault: Value| {
        fault["times"] = Value::Null;
        vec![fault]
    };
    cases.push(case("outage", for_ever(fail(500)), MAX_ATTEMPTS, End::Failed("model_unavailable")));
    cases.push(case(
        "paced-outage",
        for_ever(paced(503, 0.3)),
        MAX_ATTEMPTS,
        End::Failed("model_unavailable"),
    ));
    cases.push(case("rate-limited", for_ever(paced(429, 0.3)), MAX_ATTEMPTS, End::Failed("rate_limited")));
    cases.push(case("slow", vec![json!({"type": "delay", "seconds": 0.5})], 1, SAVED));
    cases.push(case("too-slow", vec![json!({"type": "delay", "seconds": 4.0})], 2, SAVED));
    let reply = |text: &str, finish: &str| json!({"type": "reply", "text": text, "finish_reason": finish});
    cases.push(case("cut", vec![reply("As I was say", "length")], 1, End::Saved("As I was say", "length")));
    cases.push(case("empty", vec![reply("", "stop")], 2, SAVED));
    cases.push(case("hostile", vec![reply(HOSTILE, "stop")], 1, End::Saved(HOSTILE, "stop")));
    cases
}

/// Text that an encoder on the way could break.
const HOSTILE: &str =
    "\"\\ \u{1F468}\u{200D}\u{1F469} data: [DONE]\n\nevent: error\r\n\u{2028}<b>\0\u{7f} ünï";

/// Faults that only streams have, at every place where one can be cut.
pub(super) fn of_streams(dialect: Dialect) -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend((0..dialect.chunks()).map(|after| once("disconnect", after)));
    cases.extend((0..dialect.chunks_until_reason()).map(|after| once("truncate", after)));
    let stall = |after: u32, seconds: f64| json!({"type": "stream_fault", "kind": "stall", "after_chunks": after, "stall_seconds": seconds});
    for after in [0, 1, dialect.chunks() - 1] {
        // Behind the reason to stop nothing is waited for.
        let calls = if after < dialect.chunks_until_reason() { 2 } else { 1 };
        cases.push(case(format!("stalled-{after}"), vec![stall(after, 30.0)], calls, SAVED));
    }
    cases.push(case("paused", vec![stall(2, 0.4)], 1, SAVED));
    cases.push(case("slow-start", vec![json!({"type": "slow_first_token", "seconds": 0.5})], 1, SAVED));
    cases.push(case("late-start", vec![json!({"type": "slow_first_token", "seconds": 30.0})], 2, SAVED));
    let lost = json!({"type": "stream_fault", "kind": "disconnect", "after_chunks": 3, "times": null});
    cases.push(case("lost", vec![lost], MAX_ATTEMPTS, End::Failed("bad_response")));
    // One fault after the other in one workflow.
    let each = ["truncate", "disconnect"];
    let each = each.map(|kind| json!({"type": "stream_fault", "kind": kind, "after_chunks": 3}));
    cases.push(case("both", each.to_vec(), 3, SAVED));
    cases
}

/// Streams that end in order behind the reason to stop and usage, without the marker of their end.
pub(super) fn of_ends(dialect: Dialect) -> Vec<Case> {
    let usage = match dialect {
        Dialect::Openai => 1,
        // It comes with the reason.
        Dialect::Anthropic | Dialect::Gemini => 0,
    };
    let ends = dialect.chunks_until_reason() + usage..dialect.chunks();
    ends.map(|after| Case { calls: 1, ..once("truncate", after) }).collect()
}

/// A chunk that is no JSON, at these places of a stream.
pub(super) fn of_chunks(places: impl IntoIterator<Item = u32>) -> Vec<Case> {
    places.into_iter().map(|after| once("malformed", after)).collect()
}

/// One fault in one stream; the second attempt is answered.
fn once(kind: &str, after: u32) -> Case {
    let fault = json!({"type": "stream_fault", "kind": kind, "after_chunks": after});
    case(format!("{kind}-{after}"), vec![fault], 2, SAVED)
}
