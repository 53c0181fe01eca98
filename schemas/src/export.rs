//! What the types say, for readers in other languages: a JSON Schema for each event and an `AsyncAPI` document.
//! Everything is generated from the types and their comments; `schemas/json` holds the result and a test compares.

mod asyncapi;
mod breaker;
mod events;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::{EventType, MAJOR};

/// File name of the `AsyncAPI` document.
pub const ASYNCAPI_FILE: &str = "asyncapi.json";

/// A generated document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// File name, without a directory.
    pub name: String,
    /// Indented JSON, ending in a line break; the same text whatever features `serde_json` is built with.
    pub text: String,
}

/// Every document: the `AsyncAPI` document, `{event_type}.schema.json` for each event type, and
/// `user_input_received.bare.schema.json` for the bare form of input, `live_frame.schema.json` for what is said while
/// an answer comes into being.
pub fn documents() -> Vec<Document> {
    let events = EventType::ALL.into_iter().map(|event_type| {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let schema = events::event(event_type, &mut generator);
        document(
            format!("{event_type}.schema.json"),
            events::root(schema, generator, &events::id(event_type)),
        )
    });
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let bare = events::bare_input(&mut generator);
    let bare = events::root(bare, generator, &format!("{}:bare", events::id(EventType::UserInputReceived)));
    let bare = document(format!("{}.bare.schema.json", EventType::UserInputReceived), bare);
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let live = events::live_frame(&mut generator);
    let live = events::root(live, generator, &format!("urn:throughline:live_frame:v{MAJOR}"));
    let live = document("live_frame.schema.json".to_owned(), live);
    std::iter::once(asyncapi()).chain(events).chain([bare, live]).collect()
}

/// The `AsyncAPI` 3 document alone: servers, subjects, who sends and receives, and every message with its schema.
/// It refers to no other file.
pub fn asyncapi() -> Document {
    document(ASYNCAPI_FILE.to_owned(), asyncapi::document())
}

fn document(name: String, mut json: Value) -> Document {
    unwrap_lines(&mut json);
    json.sort_all_objects();
    Document { name, text: format!("{json:#}\n") }
}

/// Joins the lines of each paragraph of the descriptions, which are broken where the source is.
fn unwrap_lines(json: &mut Value) {
    match json {
        Value::Object(object) => {
            for (key, value) in object {
                if let Value::String(text) = value {
                    if key == "description" || key == "summary" {
                        let paragraphs: Vec<_> = text.split("\n\n").map(|p| p.replace('\n', " ")).collect();
                        *text = paragraphs.join("\n\n");
                    }
                } else {
                    unwrap_lines(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(unwrap_lines),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
