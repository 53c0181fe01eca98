//! What is not a readable event is refused, and the error says why.

use serde_json::{Value, json};
use throughline_schemas::{DecodeError, EventType, VersionError, decode};

use crate::{VALIDATOR, goldens};

fn golden(event_type: EventType) -> Value {
    goldens().into_iter().find(|golden| golden.name == event_type.as_str()).unwrap().json()
}

/// A golden event with one member replaced, or removed if the value is null; its schema refuses it too.
fn changed(event_type: EventType, pointer: &str, value: Value) -> Result<(), DecodeError> {
    let mut json = golden(event_type);
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key).unwrap();
    } else {
        parent.insert(key.to_owned(), value);
    }
    let schema = format!("{event_type}.schema.json");
    assert!(!VALIDATOR.accepts(&schema, &json), "{schema} accepts another {pointer}");
    decode(json.to_string().as_bytes()).map(|_| ())
}

#[test]
fn another_version_is_refused_by_name_whatever_the_type() {
    for event_type in EventType::ALL.into_iter().filter(|t| *t != EventType::UserInputReceived) {
        let v2 = format!("urn:throughline:event:{event_type}:v2");
        match changed(event_type, "/dataschema", json!(v2)) {
            Err(DecodeError::Version(VersionError::DataSchema(found))) => assert_eq!(found, v2),
            other => panic!("{other:?}"),
        }
    }
    let error = changed(EventType::InputValidated, "/specversion", json!("0.3")).unwrap_err();
    assert_eq!(error.to_string(), "specversion \"0.3\" is not supported; CloudEvents 1.0 is");
}

#[test]
fn an_unknown_type_is_refused_and_the_known_ones_are_named() {
    let error = changed(EventType::InputValidated, "/type", json!("input_merged")).unwrap_err();
    let DecodeError::Json(_) = error else { panic!("{error:?}") };
    for known in EventType::ALL {
        assert!(error.to_string().contains(known.as_str()), "{error}");
    }
}

#[test]
fn data_that_is_missing_or_another_type_s_is_refused() {
    let error = changed(EventType::ContextRetrieved, "/data", Value::Null).unwrap_err();
    assert_eq!(error.to_string(), "event of type context_retrieved has no data");
    let others = golden(EventType::InputValidated)["data"].take();
    let error = changed(EventType::ContextRetrieved, "/data", others).unwrap_err();
    assert!(error.to_string().contains("missing field `context`"), "{error}");
}

#[test]
fn a_missing_or_mistyped_member_is_named() {
    for (pointer, value, said) in [
        ("/workflowid", Value::Null, "missing field `workflowid`"),
        ("/traceparent", Value::Null, "missing field `traceparent`"),
        ("/sessionid", json!(""), "is empty"),
        ("/userid", json!("x".repeat(257)), "is 257 bytes long; at most 256 are allowed"),
        ("/traceparent", json!("00-1-1-01"), "is not a W3C traceparent"),
        ("/time", json!("yesterday"), ""),
        ("/attempt", json!("1"), "expected u32"),
        ("/data/attempts", json!(-1), "expected u32"),
        ("/data/stage", json!("lunch"), "unknown variant `lunch`"),
    ] {
        let error = changed(EventType::WorkflowFailed, pointer, value).unwrap_err();
        let DecodeError::Json(_) = error else { panic!("{pointer}: {error:?}") };
        assert!(error.to_string().contains(said), "{pointer}: {error}");
    }
}

#[test]
fn a_failure_code_of_a_later_version_is_read_as_such() {
    changed(EventType::WorkflowFailed, "/data/code", json!("tired")).unwrap();
}

#[test]
fn money_is_a_decimal_text_and_never_a_float() {
    for float in [json!(0.000_053_1), json!("a lot"), json!("")] {
        let error = changed(EventType::InteractionSaved, "/data/cost_usd", float).unwrap_err();
        let DecodeError::Json(_) = error else { panic!("{error:?}") };
    }
}

#[test]
fn bytes_that_are_no_event_are_refused() {
    let deep = format!("{{\"data\":{}", "[".repeat(100_000));
    for bytes in [&b""[..], b"\0", b"\xff\xfe", b"{", b"[]", b"null", b"{}", deep.as_bytes()] {
        assert!(matches!(decode(bytes), Err(DecodeError::Json(_))), "{bytes:?}");
    }
}
