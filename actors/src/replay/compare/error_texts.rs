//! The texts of errors are for people and no decision: their wording may change between versions. What is compared is
//! the parts of an error; of a recording without parts, what its text is read as.

use serde::Deserialize;
use serde_json::Value;
use throughline_schemas::event::{external::FailedCall, generation::Attempt};

use crate::replay::errors::{any_fetch, failed_attempt, failed_fetch};

/// What versions that recorded no parts of an error did not record, either.
const PARTS: [&str; 3] = ["error_detail", "jitter", "should_retry"];
/// Where the error of an attempt is told.
const OF_ATTEMPT: &str = "/error";
/// The same of a source, and of one of its calls.
const OF_SOURCE: &str = "/error/message";

/// Replaces in an event the texts of errors that are the same as those of a recorded one by the texts recorded, and
/// removes parts of errors that the recorded one could not have.
pub(super) fn adopt(recorded: &Value, now: &mut Value) {
    let (Some(recorded), Some(now)) = (recorded.get("data"), now.get_mut("data")) else { return };
    // A workflow fails of an error that is on record itself.
    if quotes_error(recorded) && quotes_error(now) {
        adopt_text(recorded, now, "/message");
    }
    for list in ["attempts", "attempt_log"] {
        adopt_each(recorded.get(list), now.get_mut(list), OF_ATTEMPT, same_attempt);
    }
    let Some(sources) = now.get_mut("external").and_then(Value::as_object_mut) else { return };
    for (name, now) in sources {
        let Some(recorded) = recorded.get("external").and_then(|sources| sources.get(name)) else { continue };
        adopt_each(recorded.get("failed_calls"), now.get_mut("failed_calls"), OF_SOURCE, same_call);
        adopt_text(recorded, now, OF_SOURCE);
    }
}

fn adopt_each(
    recorded: Option<&Value>,
    now: Option<&mut Value>,
    text: &str,
    is_same: fn(&Value, &Value) -> bool,
) {
    let (Some(Value::Array(recorded)), Some(Value::Array(now))) = (recorded, now) else { return };
    for (recorded, now) in recorded.iter().zip(now) {
        let has_parts = recorded.get("error_detail").is_some();
        if has_parts || is_same(recorded, now) {
            adopt_text(recorded, now, text);
        }
        if let Some(now) = now.as_object_mut().filter(|_| !has_parts) {
            now.retain(|name, _| !PARTS.contains(&name.as_str()) || recorded.get(name).is_some());
        }
    }
}

fn adopt_text(recorded: &Value, now: &mut Value, pointer: &str) {
    if let (Some(Value::String(recorded)), Some(Value::String(now))) =
        (recorded.pointer(pointer), now.pointer_mut(pointer))
    {
        now.clone_from(recorded);
    }
}

fn same_attempt(recorded: &Value, now: &Value) -> bool {
    match (Attempt::deserialize(recorded), Attempt::deserialize(now)) {
        (Ok(recorded), Ok(now)) => failed_attempt(&recorded) == failed_attempt(&now),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn same_call(recorded: &Value, now: &Value) -> bool {
    let call = any_fetch();
    match (FailedCall::deserialize(recorded), FailedCall::deserialize(now)) {
        (Ok(recorded), Ok(now)) => failed_fetch(&recorded, &call) == failed_fetch(&now, &call),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

/// Whether the message of a failure contains the text of an error that is on record with it.
fn quotes_error(data: &Value) -> bool {
    let Some(message) = data.get("message").and_then(Value::as_str) else { return false };
    let attempts = data.get("attempt_log").and_then(Value::as_array).into_iter().flatten();
    let attempts = attempts.filter_map(|attempt| attempt.pointer(OF_ATTEMPT));
    let sources =
        data.get("external").and_then(Value::as_object).into_iter().flat_map(|sources| sources.values());
    let sources = sources.filter_map(|source| source.pointer(OF_SOURCE));
    let mut texts = attempts.chain(sources).filter_map(Value::as_str);
    texts.any(|text| !text.is_empty() && message.contains(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Of an attempt that failed, with this text and these members besides.
    fn attempt(text: &str, more: &Value) -> Value {
        let mut attempt = json!({
            "provider": "p", "model": "m", "started_at": "2026-01-01T00:00:00Z", "duration_ms": 1, "sent": true,
            "error_class": "unknown", "error_code": "too_large", "error": text,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            attempt[name] = value.clone();
        }
        attempt
    }

    fn failed(attempt: &Value) -> Value {
        json!({"data": {"message": attempt["error"], "attempt_log": [attempt]}})
    }

    fn is_same(recorded: &Value, now: &Value) -> bool {
        let mut now = now.clone();
        adopt(recorded, &mut now);
        *recorded == now
    }

    #[test]
    fn another_wording_of_an_error_is_no_difference() {
        let now = |limit: u32| {
            let more = json!({"error_detail": {"limit_bytes": limit}, "jitter": 5});
            failed(&attempt(&format!("more than {limit} bytes came; raise the limit"), &more))
        };
        let with_parts =
            failed(&attempt("too large", &json!({"error_detail": {"limit_bytes": 9}, "jitter": 5})));
        assert!(is_same(&with_parts, &now(9)));
        assert!(!is_same(&with_parts, &now(8)), "another limit");
        let text_only = failed(&attempt("the answer is larger than 9 bytes", &json!({})));
        assert!(is_same(&text_only, &now(9)));
        assert!(!is_same(&text_only, &now(8)), "another limit");
        let other_jitter =
            failed(&attempt("too large", &json!({"error_detail": {"limit_bytes": 9}, "jitter": 6})));
        assert!(!is_same(&other_jitter, &now(9)));
    }

    #[test]
    fn another_wording_of_a_source_s_error_is_no_difference() {
        let of = |text: &str, limit: u32, parts: Option<Value>| {
            let message = format!("orders: {text} {limit} ms");
            let error = json!({"code": "timed_out", "message": message});
            let mut call = json!({"duration_ms": 1, "error": error});
            if let Some(parts) = parts {
                call["error_detail"] = parts;
            }
            let source = json!({"status": "failed", "error": error, "failed_calls": [call]});
            let message = format!("nothing is answered without this data: {message}");
            json!({"data": {"message": message, "external": {"orders": source}}})
        };
        let now = |limit: u32| of("came too late, after", limit, Some(json!({"limit_ms": limit})));
        assert!(is_same(&of("no complete answer within", 300, None), &now(300)));
        assert!(!is_same(&of("no complete answer within", 300, None), &now(200)));
        assert!(is_same(&of("anything", 1, Some(json!({"limit_ms": 300}))), &now(300)));
        assert!(!is_same(&of("anything", 1, Some(json!({"limit_ms": 300}))), &now(200)));
    }

    #[test]
    fn other_messages_and_other_data_are_compared_as_they_are() {
        let of = |message: &str, jitter: u32| {
            let answer = json!({"status": "ok", "data": {"error": {"message": message}, "jitter": jitter}});
            json!({"data": {"message": message, "external": {"orders": answer}}})
        };
        assert!(is_same(&of("a", 1), &of("a", 1)));
        assert!(!is_same(&of("a", 1), &of("b", 1)));
        assert!(!is_same(&of("a", 1), &of("a", 2)));
    }
}
