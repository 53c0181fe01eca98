#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    pace::{Pace, is_slow},
    *,
};

const HOSTILE: &str = "\u{1b}]0;gone\u{7}\u{1b}[2J\r\u{202e}";

fn stored(sequence: u64, ms: i64, subject: &str, body: &Value) -> StoredEvent {
    StoredEvent {
        sequence,
        subject: subject.to_owned(),
        stored_at: Timestamp::from_unix_ms(ms),
        headers: Vec::new(),
        body: Bytes::from(body.to_string()),
    }
}

/// An event of a stage, stored `ms` milliseconds after the epoch.
fn event(sequence: u64, ms: i64, kind: &str, workflow: &str, data: &Value) -> StoredEvent {
    let body = json!({
        "specversion": "1.0", "id": format!("{workflow}.{kind}"), "source": "throughline/x", "type": kind,
        "time": "1970-01-01T00:00:00Z", "workflowid": workflow, "sessionid": "s", "userid": "u",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data": data,
    });
    stored(sequence, ms, &format!("t.v1.{kind}.s.{workflow}"), &body)
}

fn request(input_sequence: u64) -> Value {
    json!({"user_input": "hello", "input_sequence": input_sequence, "received_at": "1970-01-01T00:00:00Z"})
}

/// A workflow whose input was published bare.
fn journey() -> Vec<StoredEvent> {
    let input = json!({"user_id": "u", "session_id": "s", "user_input": format!("hel{HOSTILE}lo")});
    let attempt = |error: Option<&str>| {
        json!({"provider": "openai", "model": "m", "started_at": "1969-12-31T23:59:59.990Z",
               "duration_ms": 7.5, "sent": true, "http_status": 503, "error": error,
               "error_class": error.map(|_| "transient"), "error_code": error.map(|_| "server"),
               "retry_in_ms": error.map(|_| 20)})
    };
    let source = |status: &str| json!({"status": status, "duration_ms": 3.25, "calls": 1});
    let (mut answered, mut failed) = (source("ok"), source("failed"));
    answered["data"] = json!({"a": 1});
    failed["error"] = json!({"code": "timed_out", "message": "m"});
    failed["failed_calls"] = json!([{"duration_ms": 3.25, "retry_in_ms": 20,
        "error": {"code": "timed_out", "message": format!("m{HOSTILE}")}}]);
    let response =
        json!({"text": "the answer", "model": "gpt", "provider": "openai", "finish_reason": "stop"});
    let usage = json!({"input_tokens": 10, "output_tokens": 5});
    vec![
        stored(4, 0, "t.v1.user_input_received", &input),
        event(5, 2, "input_validated", "w", &json!({"request": request(4)})),
        event(
            6,
            4,
            "context_retrieved",
            "w",
            &json!({"request": request(4),
            "context": {"preferences": {"tone": "kind"}, "recent_turns": []}}),
        ),
        event(
            7,
            2_504,
            "external_data_fetched",
            "w",
            &json!({"request": request(4), "context": {},
            "external": {"crm": answered, "orders": failed, "stock": source("skipped")}}),
        ),
        event(
            8,
            2_520,
            "response_generated",
            "w",
            &json!({"request": request(4), "response": response,
            "usage": usage, "cost_usd": "0.0001", "attempts": [attempt(Some("overloaded")), attempt(None)],
            "prompt": {"id": "p", "hash": "h", "config": "c", "messages": [], "max_tokens": 1, "temperature_milli": 0},
            "raw_response": null}),
        ),
        event(
            9,
            2_525,
            "interaction_saved",
            "w",
            &json!({"interaction_id": "i", "response": response,
            "usage": usage, "received_at": "1970-01-01T00:00:00Z", "saved_at": "1970-01-01T00:00:00Z"}),
        ),
    ]
}

#[test]
fn a_workflow_reads_from_its_input_to_its_end() {
    let text = render(&journey(), Style::plain());
    let expected = "\
workflow w  user u  session s  trace 4bf92f3577b34da6a3ce929d0e0e4736  1970-01-01T00:00:00Z
    start       waited         took  stage        event
  +0.0 ms                                         user_input_received    \"hel\\u{1b}]0;gone\\u{7}\\u{1b}[2J\\r\\u{202e}lo\"
  +0.0 ms                    2.0 ms  input        input_validated        5 characters, stream sequence 4
  +2.0 ms                    2.0 ms  context      context_retrieved      0 earlier turns, 1 preference
 +2500 ms 2496 ms slow       3.2 ms  external     external_data_fetched  crm ok 3.2 ms (7 B), orders failed (timed_out) 3.2 ms, stock skipped
        orders failed: timed_out, 3.2 ms, again in 20 ms: m\\u{1b}]0;gone\\u{7}\\u{1b}[2J\\r\\u{202e}
 +2510 ms       6.0 ms        10 ms  generation   response_generated     gpt, 10 + 5 tokens, $0.0001, 2 attempts
        attempt at m (openai) 503, 7.5 ms, transient server, again in 20 ms: overloaded
        \"the answer\"
 +2520 ms                    5.0 ms  persistence  interaction_saved      complete in 2525 ms
";
    assert_eq!(text, expected);
}

#[test]
fn waiting_is_what_came_before_the_work_and_never_more_than_there_was() {
    let events = journey();
    let mut pace = Pace::default();
    let steps: Vec<_> = events.iter().map(|event| pace.step(&Moment::of(event, Style::plain()))).collect();
    assert_eq!((steps[0].waited, steps[0].took), (None, None), "nothing comes before the input");
    assert_eq!((steps[1].waited, steps[1].took), (None, Some(Duration::from_millis(2))), "not on record");
    assert_eq!(steps[3].waited, Some(Duration::from_micros(2_496_750)));
    assert_eq!(steps[3].start + steps[3].took.unwrap(), Duration::from_millis(2504), "its end");
    // A clock that is ahead, or work that was begun before, makes no time negative.
    let mut early = Moment::of(&events[4], Style::plain());
    early.worked = Some(Duration::from_hours(1));
    let mut pace = Pace::default();
    pace.step(&Moment::of(&events[3], Style::plain()));
    let step = pace.step(&early);
    assert_eq!((step.waited, step.took), (Some(Duration::ZERO), Some(Duration::from_millis(16))));
}

#[test]
fn slow_is_a_second_and_half_a_minute_of_a_model() {
    let ms = Duration::from_millis;
    for (stage, from) in [("context", 1_000), ("external", 1_000), ("generation", 30_000)] {
        assert!(is_slow(stage, ms(from)) && !is_slow(stage, ms(from - 1)), "{stage}");
    }
}

#[test]
fn colours_are_the_only_control_characters() {
    let events = journey();
    let text = render(&events, Style::plain());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn interleaved_workflows_are_put_together_and_failures_are_explained() {
    let failure = json!({"code": "rate_limited", "stage": "generation", "message": "m\u{1b}[31m", "attempts": 4,
                         "retryable": true, "may_have_happened": true});
    let events = [
        event(1, 0, "input_validated", "a", &json!({"request": request(0)})),
        event(2, 1, "input_validated", "b", &json!({"request": request(0)})),
        event(3, 2, "workflow_failed", "a", &failure),
    ];
    let text = render(&events, Style::plain());
    let headers: Vec<&str> = text.lines().filter(|line| line.starts_with("workflow")).collect();
    assert_eq!(headers.len(), 2);
    assert!(text.find("workflow a") < text.find("rate_limited in generation, after 4 attempts"));
    assert!(text.find("rate_limited") < text.find("workflow b"));
    assert!(text.contains(r"m\u{1b}[31m") && text.contains("may have been billed"));
}

#[test]
fn what_cannot_be_read_is_shown_as_such() {
    let odd = [
        stored(1, 0, "t.v1.user_input_received", &json!([1])),
        stored(2, 0, "t.v1.response_generated.s.w", &json!({"specversion": "1.0"})),
        stored(3, 0, "t.v1.tool_called.s.w", &json!({})),
        stored(4, 0, "t.v1.user_input_received.s.x", &json!({"user_id": "u"})),
    ];
    let text = render(&odd, Style::wide(160));
    assert_eq!(text.matches("cannot be read").count(), 2, "{text}");
    assert!(text.contains("send an object"), "{text}");
    assert!(text.contains("not acceptable: session_id is missing; user_input is missing"), "{text}");
}

#[test]
fn durations_have_as_many_digits_as_people_read() {
    let said = |micros| duration(Duration::from_micros(micros));
    assert_eq!(said(430), "0.4 ms");
    assert_eq!(said(9_990), "9.9 ms");
    assert_eq!(said(10_400), "10 ms");
    assert_eq!(said(9_999_000), "9999 ms");
    assert_eq!(said(12_340_000), "12.3 s");
    assert_eq!(said(125_000_000), "2 min 5 s");
    assert_eq!(said(7_260_000_000), "2 h 1 min");
}

#[test]
fn workflows_that_never_end_do_not_fill_the_memory() {
    let mut groups = Groups::default();
    let mut given_out = 0;
    for n in 0..10_100 {
        let event = stored(n, 0, &format!("t.v1.context_retrieved.s.w{n}"), &json!({}));
        given_out += groups.add(Moment::of(&event, Style::plain())).len();
    }
    assert_eq!(given_out, 100);
    assert_eq!(groups.finish().len(), 10_000);
}

#[test]
fn attempts_at_all_models_are_counted_and_what_was_counted_is_not_in_doubt() {
    let attempt = |model: &str, usage: Option<Value>| {
        json!({"provider": "openai", "model": model, "started_at": "1969-12-31T23:59:59.990Z", "duration_ms": 7.5,
               "sent": true, "error": "cut", "error_class": "unknown", "error_code": "cut_short",
               "may_have_been_billed": true, "usage": usage})
    };
    let counted = || Some(json!({"input_tokens": 72, "output_tokens": 1}));
    let log: Vec<Value> = ["one", "two"]
        .iter()
        .flat_map(|model| (0..4).map(|n| attempt(model, counted().filter(|_| n > 0))))
        .collect();
    // A stage counts those at one model.
    let failure = json!({"code": "model_unavailable", "stage": "generation", "message": "cut", "attempts": 4,
                         "retryable": true, "may_have_happened": false, "attempt_log": log});
    let text = render(&[event(3, 2, "workflow_failed", "a", &failure)], Style::plain());
    assert!(text.contains("after 8 attempts"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("attempt at ")).collect();
    assert_eq!(lines.len(), 8, "{text}");
    for line in lines {
        let is_counted = line.contains("72 + 1 tokens");
        assert_ne!(is_counted, line.contains("may have been billed"), "{line}");
        assert_ne!(is_counted, line.contains("unknown whether it happened"), "{line}");
    }
}
