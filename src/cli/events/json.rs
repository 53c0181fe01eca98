//! One event as one line of JSON.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use throughline_schemas::{EventType, Tokens, json, token};

use crate::bus::nats::StoredEvent;

/// The stored event, unchanged but on one line, if it is a structured CloudEvent. Other forms of input become one: with
/// the attributes that they have, and the ones that they would have as an event of ours. `led_to` is the event by which
/// an input was found that does not name its workflow.
pub(super) fn line(event: &StoredEvent, led_to: Option<&StoredEvent>) -> String {
    let text = json::read(&event.body).ok();
    match text.and_then(|text| Some((json::compact(&text), json::view(text.as_bytes()).ok()?))) {
        Some((written, Value::Object(object))) if object.contains_key("specversion") => written,
        Some((written, data)) => wrapped(event, led_to, &data, &written),
        None => {
            let text = Value::String(String::from_utf8_lossy(&event.body).into_owned());
            wrapped(event, led_to, &text, &text.to_string())
        }
    }
}

/// `written` is the data, as it was written.
fn wrapped(event: &StoredEvent, led_to: Option<&StoredEvent>, data: &Value, written: &str) -> String {
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
        .or_else(|| message_id.map(|(_, id)| Value::String(id.clone())))
        .or_else(|| {
            let led_to: Value = serde_json::from_slice(&led_to?.body).ok()?;
            text(led_to.get("workflowid"))
        });
    let id = workflow
        .as_ref()
        .and_then(Value::as_str)
        .map(|workflow| Value::String(format!("{}.{}", token(workflow), EventType::UserInputReceived)));
    for (key, value) in [
        ("id", id),
        ("subject", workflow.clone()),
        ("workflowid", workflow),
        ("sessionid", text(data.get("session_id"))),
        ("userid", text(data.get("user_id"))),
    ] {
        if let Some(value) = value {
            envelope.entry(key).or_insert(value);
        }
    }
    let kind = Tokens::of(&event.subject).map_or(EventType::UserInputReceived.as_str(), |tokens| tokens.kind);
    envelope.entry("specversion").or_insert_with(|| "1.0".into());
    envelope.entry("source").or_insert_with(|| event.subject.as_str().into());
    envelope.entry("datacontenttype").or_insert_with(|| "application/json".into());
    envelope.entry("type").or_insert_with(|| kind.into());
    envelope.entry("time").or_insert_with(|| event.stored_at.to_string().into());
    envelope.remove("data");
    let envelope = Value::Object(envelope).to_string();
    let open = envelope.strip_suffix('}').unwrap_or(&envelope);
    format!("{open},\"data\":{written}}}")
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
        assert_eq!(line(&stored(body, &[]), None), expected);
    }

    #[test]
    fn other_forms_get_the_keys_that_a_script_looks_for() {
        let bare = stored(r#"{"user_id":"u","session_id":"s","user_input":"x"}"#, &[("Nats-Msg-Id", "m")]);
        let value: Value = serde_json::from_str(&line(&bare, None)).unwrap();
        assert_eq!(value["type"], "user_input_received");
        assert_eq!(
            (&value["workflowid"], &value["sessionid"], &value["data"]["user_input"]),
            (&json!("m"), &json!("s"), &json!("x"))
        );
        assert_eq!(
            (&value["specversion"], &value["id"], &value["subject"], &value["source"]),
            (&json!("1.0"), &json!("m.user_input_received"), &json!("m"), &json!("t.v1.user_input_received"))
        );
        let nameless = stored(r#"{"user_id":"u","session_id":"s","user_input":"x"}"#, &[]);
        let found_by = stored(r#"{"specversion":"1.0","workflowid":"w"}"#, &[]);
        let value: Value = serde_json::from_str(&line(&nameless, Some(&found_by))).unwrap();
        assert_eq!((&value["workflowid"], &value["subject"]), (&json!("w"), &json!("w")));
        let headers = [("ce-id", "a%20b"), ("ce-type", "user_input_received"), ("ce-sessionid", "s2")];
        let binary = stored(r#"{"user_input":"x"}"#, &headers);
        let value: Value = serde_json::from_str(&line(&binary, None)).unwrap();
        assert_eq!(
            (&value["workflowid"], &value["sessionid"], &value["id"]),
            (&json!("a b"), &json!("s2"), &json!("a b"))
        );
        let anonymous = stored(r#"{"user_id":"u","session_id":"s","user_input":"x"}"#, &[]);
        assert!(!line(&anonymous, None).contains("workflowid"));
        assert_eq!(
            serde_json::from_str::<Value>(&line(&stored("no\njson", &[]), None)).unwrap()["data"],
            "no\njson"
        );
    }
}
