//! Schemas and readers agree: nothing that a schema accepts is refused by the reader it speaks for.

use serde_json::{Value, json};
use throughline_schemas::{EventType, decode};

use crate::{Golden, VALIDATOR, goldens, read_input};

#[test]
fn what_a_schema_accepts_is_read() {
    let (mut accepted, mut refused) = (0, 0);
    let all = goldens();
    for golden in &all {
        let whole = golden.json();
        for pointer in members(&whole) {
            for (what, changed) in damaged(&whole, &pointer) {
                if !VALIDATOR.accepts(&golden.schema(), &changed) {
                    refused += 1;
                    continue;
                }
                accepted += 1;
                if let Err(error) = read(golden, &all, &changed) {
                    panic!(
                        "{}: with {pointer} {what} the schema accepts what the reader refuses: {error}",
                        golden.name
                    );
                }
            }
        }
    }
    assert!(
        accepted > 100 && refused > 500,
        "{accepted} accepted, {refused} refused: too few to mean anything"
    );
}

/// Reads a document with the reader that its schema speaks for.
fn read(golden: &Golden, all: &[Golden], json: &Value) -> Result<(), String> {
    if golden.event_type == EventType::UserInputReceived {
        return read_input(json).map(|_| ());
    }
    let mut json = json.clone();
    if golden.is_reference() {
        // What it refers to is fetched before it is read.
        let data = all.iter().find(|g| g.name == golden.event_type.as_str()).unwrap().json();
        json["data"] = data["data"].clone();
    }
    decode(json.to_string().as_bytes()).map(|_| ()).map_err(|error| error.to_string())
}

/// JSON pointers to every member of every object.
fn members(json: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match json {
        Value::Object(object) => object.iter().map(|(key, value)| (format!("/{key}"), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, value)| (format!("/{n}"), value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let mut found = Vec::new();
    for (key, value) in children {
        found.extend(members(value).into_iter().map(|below| format!("{key}{below}")));
        found.push(key);
    }
    found
}

/// The document without one member, and with other things in its place.
fn damaged(whole: &Value, pointer: &str) -> Vec<(&'static str, Value)> {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut without = whole.clone();
    let mut documents = Vec::new();
    if let Some(object) = without.pointer_mut(parent).and_then(Value::as_object_mut) {
        object.remove(key);
        documents.push(("missing", without));
    }
    let others = [
        ("null", Value::Null),
        ("a boolean", json!(true)),
        ("a negative number", json!(-1)),
        ("a fraction", json!(0.5)),
        ("a text", json!("text")),
        ("an empty text", json!("")),
        ("a long text", "x".repeat(300).into()),
        ("an array", json!([1])),
        ("an object", json!({"a": {}})),
    ];
    for (what, other) in others {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).unwrap() = other;
        documents.push((what, changed));
    }
    documents
}
