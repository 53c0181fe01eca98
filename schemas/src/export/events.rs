//! JSON Schemas of whole events, derived from the envelope as it is written and the data as it is read.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::{
    EventType, LiveFrame, MAX_ID_BYTES, WorkflowFailed, data_schema,
    envelope::Written,
    event::{
        ContextRetrieved, ExternalDataFetched, InputValidated, InteractionSaved, ResponseGenerated,
        UserInputReceived,
    },
};

/// What an event of a stage must have, beside `data` or `dataref`. The rest of [`Written`] repeats or explains.
const REQUIRED_OF_STAGES: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "workflowid",
    "sessionid",
    "userid",
    "traceparent",
    "attempt",
];
/// What a publisher's `CloudEvent` must have.
const REQUIRED_OF_PUBLISHERS: [&str; 5] = ["specversion", "id", "source", "type", "data"];
/// What is not read from a publisher's `CloudEvent`.
const IGNORED_OF_PUBLISHERS: [&str; 5] = ["workflowid", "partitionkey", "causationid", "attempt", "dataref"];
/// What `id` means in a publisher's `CloudEvent`.
const PUBLISHERS_ID: &str = "Id of the event. It is the workflow id unless `data` names one; publishing the same \
                             workflow id twice runs it once.";

/// `$id` of the schema of an event type.
pub(super) fn id(event_type: EventType) -> String {
    data_schema(event_type)
}

/// The schema of a whole event, envelope and data; what it refers to is left in the generator.
pub(super) fn event(event_type: EventType, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = match event_type {
        EventType::UserInputReceived => whole::<UserInputReceived>(event_type, generator),
        EventType::InputValidated => whole::<InputValidated>(event_type, generator),
        EventType::ContextRetrieved => whole::<ContextRetrieved>(event_type, generator),
        EventType::ExternalDataFetched => whole::<ExternalDataFetched>(event_type, generator),
        EventType::ResponseGenerated => whole::<ResponseGenerated>(event_type, generator),
        EventType::InteractionSaved => whole::<InteractionSaved>(event_type, generator),
        EventType::WorkflowFailed => whole::<WorkflowFailed>(event_type, generator),
    };
    let publishers = event_type == EventType::UserInputReceived;
    let required: &[&str] = if publishers { &REQUIRED_OF_PUBLISHERS } else { &REQUIRED_OF_STAGES };
    schema.insert("required".to_owned(), json!(required));
    if !publishers {
        schema.insert("anyOf".to_owned(), json!([{"required": ["data"]}, {"required": ["dataref"]}]));
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        set(properties, "type", "const", event_type.as_str().into());
        if publishers {
            // Publishers send their data inline, and may describe it with a schema of their own.
            for ignored in IGNORED_OF_PUBLISHERS {
                properties.remove(ignored);
            }
            set(properties, "id", "description", PUBLISHERS_ID.into());
            set(properties, "id", "maxLength", MAX_ID_BYTES.into());
        } else {
            set(properties, "dataschema", "const", data_schema(event_type).into());
        }
    }
    schema
}

/// The schema of `user_input_received` without an envelope.
pub(super) fn bare_input(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = UserInputReceived::json_schema(generator);
    schema.insert("title".to_owned(), format!("{} (bare)", EventType::UserInputReceived).into());
    schema
}

/// The schema of a live frame.
pub(super) fn live_frame(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = LiveFrame::json_schema(generator);
    schema.insert("title".to_owned(), "live_frame".into());
    schema
}

/// Makes a schema a document of its own: dialect, id, and the definitions it refers to.
pub(super) fn root(mut schema: Schema, mut generator: SchemaGenerator, id: &str) -> Value {
    if let Some(dialect) = generator.settings().meta_schema.clone() {
        schema.insert("$schema".to_owned(), dialect.into());
    }
    schema.insert("$id".to_owned(), id.into());
    schema.insert("$defs".to_owned(), Value::Object(generator.take_definitions(true)));
    schema.to_value()
}

fn whole<D: JsonSchema + 'static>(event_type: EventType, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Written::<'static, D>::json_schema(generator);
    schema.insert("title".to_owned(), event_type.as_str().into());
    if let Some(description) = D::json_schema(generator).get("description") {
        schema.insert("description".to_owned(), description.clone());
    }
    schema
}

fn set(properties: &mut Map<String, Value>, property: &str, keyword: &str, value: Value) {
    if let Some(Value::Object(schema)) = properties.get_mut(property) {
        schema.insert(keyword.to_owned(), value);
    }
}
