//! One event as one line of JSON.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use throughline_schemas::{EventType, Tokens};

use crate::bus::nats::StoredEvent;

/// The stored event, unchanged but on one line, if it is a structured CloudEvent. Other forms of input become an
/// object with the same keys, as far as they say something: `type`, `data`, `id`, `workflowid`, ...
pub(super) fn line(event: &StoredEvent) -> String {
    match serde_json::from_slice::<Value>(&event.body) {
        Ok(Value::Object(object)) if object.contains_key("specversion") => compact(&event.body),
        Ok(data) => wrapped(event, data),
        Err(_) => wrapped(event, Value::String(String::from_utf8_lossy(&event.body).into_owned())),
    }
}

/// Valid JSON without white space between its tokens. Numbers and the order of keys stay as they are.
fn compact(json: &[u8]) -> String {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn wrapped(event: &StoredEvent, data: Value) -> String {
    let mut envelope = Map::new();
    for (name, value) in &event.headers {
        if let Some(attribute) = name.to_ascii_lowercase().strip_prefix("ce-") {
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            envelope.insert(attribute.to_owned(), Value::String(value));
        }
    }
    let message_id = event.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("nats-msg-id"));
    // As the input stage takes them.
    let text = |value: Option<&Value>| value.filter(|value| value.is_string()).cloned();
    let workflow = text(data.get("workflow_id"))
        .or_else(|| envelope.get("id").cloned())
        .or_else(|| message_id.map(|(_, id)| Value::String(id.clone())));
    for (key, value) in [
        ("workflowid", workflow),
        ("sessionid", text(data.get("session_id"))),
        ("userid", text(data.get("user_id"))),
    ] {
        if let Some(value) = value {
            envelope.entry(key).or_insert(value);
        }
    }
    let kind = Tokens::of(&event.subject).map_or(EventType::UserInputReceived.as_str(), |tokens| tokens.kind);
    envelope.entry("type").or_insert_with(|| kind.into());
    envelope.entry("time").or_insert_with(|| event.stored_at.to_string().into());
    envelope.insert("data".to_owned(), data);
    Value::Object(envelope).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use serde_json::json;
    use throughline_schemas::Timestamp;

    use super::*;

    fn stored(body: &'static str, headers: &[(&str, &str)]) -> StoredEvent {
        StoredEvent {
            sequence: 1,
            subject: "t.v1.user_input_received".to_owned(),
            stored_at: Timestamp::from_unix_ms(0),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn a_cloud_event_stays_as_it_is_on_one_line() {
        let body =
            "{ \"specversion\" : \"1.0\",\r\n\t\"n\": 1.50, \"b\": \" \\\" \\\\\", \"a\": [ 1, 2 ] }\n";
        let expected = r#"{"specversion":"1.0","n":1.50,"b":" \" \\","a":[1,2]}"#;
        assert_eq!(line(&stored(body, &[])), expected);
    }

    #[test]
    fn other_forms_get_the_keys_that_a_script_looks_for() {
        let bare = stored(r#"{"user_id":"u","session_id":"s","user_input":"x"}"#, &[("Nats-Msg-Id", "m")]);
        let value: Value = serde_json::from_str(&line(&bare)).unwrap();
        assert_eq!(value["type"], "user_input_received");
        assert_eq!(
            (&value["workflowid"], &value["sessionid"], &value["data"]["user_input"]),
            (&json!("m"), &json!("s"), &json!("x"))
        );
        let headers = [("ce-id", "a%20b"), ("ce-type", "user_input_received"), ("ce-sessionid", "s2")];
        let binary = stored(r#"{"user_input":"x"}"#, &headers);
        let value: Value = serde_json::from_str(&line(&binary)).unwrap();
        assert_eq!(
            (&value["workflowid"], &value["sessionid"], &value["id"]),
            (&json!("a b"), &json!("s2"), &json!("a b"))
        );
        let anonymous = stored(r#"{"user_id":"u","session_id":"s","user_input":"x"}"#, &[]);
        assert!(!line(&anonymous).contains("workflowid"));
        assert_eq!(
            serde_json::from_str::<Value>(&line(&stored("no\njson", &[]))).unwrap()["data"],
            "no\njson"
        );
    }
}
