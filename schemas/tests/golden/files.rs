//! Every golden file is read, says what it said, and keeps to its schema.

use serde_json::{Value, json};
use throughline_schemas::{DecodeError, EventType, LiveFrame, decode, encode, encode_reference};

use crate::{Golden, VALIDATOR, goldens, read_input};

/// Members of golden files that this build does not know and therefore drops. Readers ignore what they do not know.
const UNKNOWN: [(&str, &[&str]); 1] = [(
    "input_validated.unknown_fields",
    &["/data/lane", "/data/request/language", "/data/request/risk", "/tenantid", "/tracestate"],
)];
/// Members that were added to v1 after a golden file was written and are written with a default.
const ADDED_LATER: [&str; 0] = [];

#[test]
fn every_event_type_has_a_golden_file() {
    for event_type in EventType::ALL {
        assert!(goldens().iter().any(|golden| golden.name == event_type.as_str()), "{event_type} has none");
    }
}

#[test]
fn what_stages_wrote_is_read_and_written_again_alike() {
    for golden in goldens().iter().filter(|golden| !golden.is_published() && !golden.is_reference()) {
        let event = decode(&golden.bytes).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        assert_eq!(event.event_type(), golden.event_type);
        let written = encode(&event).unwrap();
        assert_eq!(decode(&written).unwrap(), event, "{}", golden.name);

        let (mut lost, mut added) = (Vec::new(), Vec::new());
        compare("", &golden.json(), &serde_json::from_slice(&written).unwrap(), &mut lost, &mut added);
        let unknown =
            UNKNOWN.iter().find(|(name, _)| *name == golden.name).map_or(&[][..], |(_, paths)| *paths);
        assert_eq!(lost, unknown, "{} lost or changed these", golden.name);
        added.retain(|path| !ADDED_LATER.contains(&path.as_str()));
        assert_eq!(added, [""; 0], "{} gained these", golden.name);
    }
}

#[test]
fn the_envelope_says_what_the_subject_says() {
    for golden in goldens().iter().filter(|golden| !golden.is_published() && !golden.is_reference()) {
        let event = decode(&golden.bytes).unwrap();
        assert_eq!(
            event.meta.id,
            format!("{}.{}", event.subject().workflow_token(), golden.event_type),
            "{}",
            golden.name
        );
    }
}

#[test]
fn a_reference_stands_for_data_and_is_no_event_by_itself() {
    let all = goldens();
    let reference = all.iter().find(|golden| golden.is_reference()).unwrap();
    let Err(DecodeError::NoData(EventType::ResponseGenerated)) = decode(&reference.bytes) else {
        panic!("an event without data was read");
    };
    let whole = all.iter().find(|golden| golden.name == reference.event_type.as_str()).unwrap();
    let json = reference.json();
    let written =
        encode_reference(&decode(&whole.bytes).unwrap(), json["dataref"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), json);
}

#[test]
fn every_form_of_input_reads_as_the_same_input() {
    let read: Vec<_> = goldens()
        .iter()
        .filter(|golden| golden.event_type == EventType::UserInputReceived)
        .map(|Golden { name, bytes, .. }| {
            let json = serde_json::from_slice(bytes).unwrap();
            read_input(&json).unwrap_or_else(|error| panic!("{name}: {error}"))
        })
        .collect();
    assert_eq!(read.len(), 3);
    for input in &read {
        assert_eq!(input.user_input, "What is the status of my recent order?");
        assert_eq!((input.user_id.as_str(), input.session_id.as_str()), ("user-117", "chat-2211"));
    }
}

#[test]
fn every_golden_file_keeps_to_its_schema() {
    for golden in goldens() {
        VALIDATOR
            .check(&golden.schema(), &golden.json())
            .unwrap_or_else(|error| panic!("{}: {error}", golden.name));
    }
}

#[test]
fn live_frames_keep_to_their_schema() {
    let frame = |kind: &str, more: Value| {
        let mut frame = json!({"workflow_id": "w1", "delivery": 1, "seq": 0, "attempt": 1, "kind": kind});
        frame.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame
    };
    let frames = [
        frame("started", json!({"model": "gpt-4o-mini", "provider": "openai"})),
        frame("text", json!({"text": "It has "})),
        frame("restarted", json!({"reason": "the connection broke"})),
        frame("completed", json!({"finish_reason": "stop"})),
    ];
    for frame in frames {
        VALIDATOR.check("live_frame.schema.json", &frame).unwrap_or_else(|error| panic!("{frame}: {error}"));
        let read: LiveFrame = serde_json::from_value(frame.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), frame);
    }
    assert!(
        !VALIDATOR.accepts("live_frame.schema.json", &json!({"kind": "text"})),
        "what it is of is missing"
    );
}

/// Collects the paths at which `after` lost or changed something of `before`, and what it has beyond it.
fn compare(path: &str, before: &Value, after: &Value, lost: &mut Vec<String>, added: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = format!("{path}/{key}");
                match after.get(key) {
                    Some(now) => compare(&path, value, now, lost, added),
                    None => lost.push(path),
                }
            }
            added.extend(
                after.keys().filter(|key| !before.contains_key(*key)).map(|key| format!("{path}/{key}")),
            );
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}/{index}"), before, after, lost, added);
            }
        }
        (before, after) if before == after => {}
        _ => lost.push(path.to_owned()),
    }
}
