//! The reusable parts of the `AsyncAPI` document: messages, schemas, parameters.

use schemars::{
    JsonSchema, SchemaGenerator,
    generate::SchemaSettings,
    transform::{RemoveRefSiblings, Transform},
};
use serde_json::{Map, Value, json};

use super::super::{breaker::BreakerMoved, events};
use crate::{EventType, FailureCode, LiveFrame, StageName, Timestamp, TraceParent, dead_letter};

/// How an id becomes a token of a subject.
const TOKEN: &str = "the id itself if it matches `[A-Za-z0-9_-]{1,64}`, else `h` and the lower-case hex SHA-256 of \
                     its UTF-8 bytes";

pub(super) fn components() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut schemas = Map::new();
    let mut messages = Map::new();
    for event_type in EventType::ALL {
        let schema = events::event(event_type, &mut generator);
        let summary = schema.get("description").cloned().unwrap_or_default();
        messages.insert(event_type.to_string(), event_message(event_type, &summary, &mut generator));
        schemas.insert(event_type.to_string(), schema.to_value());
    }
    let input = EventType::UserInputReceived;
    messages.insert(format!("{input}_binary"), binary_input(&mut generator));
    messages.insert(format!("{input}_bare"), bare_input(&mut generator));
    messages.insert("dead_letter".to_owned(), dead_letter(&mut generator));
    messages.insert("breaker_moved".to_owned(), breaker_moved(&mut generator));
    messages.insert("live_frame".to_owned(), live_frame(&mut generator));
    schemas.extend(generator.take_definitions(false));

    // Draft 7 ignores what stands beside a `$ref`; references of `AsyncAPI`'s own have nothing beside them.
    let mut transform = RemoveRefSiblings::default();
    for schema in schemas.values_mut() {
        if let Ok(schema) = schema.try_into() {
            transform.transform(schema);
        }
    }
    json!({"schemas": schemas, "messages": messages, "parameters": parameters()})
}

fn event_message(event_type: EventType, summary: &Value, generator: &mut SchemaGenerator) -> Value {
    let workflow = if event_type == EventType::UserInputReceived { "id" } else { "workflowid" };
    json!({
        "name": event_type.as_str(),
        "title": event_type.as_str(),
        "summary": summary,
        "contentType": "application/cloudevents+json",
        "correlationId": {"location": format!("$message.payload#/{workflow}")},
        "headers": {
            "type": "object",
            "properties": {
                "Content-Type": {"const": "application/cloudevents+json"},
                "Nats-Msg-Id": {"type": "string", "description": "The event's id; the server stores it once."},
                "traceparent": reference::<TraceParent>(generator),
            },
        },
        "payload": schema(event_type.as_str()),
        "bindings": {"nats": {}},
    })
}

fn bare_input(generator: &mut SchemaGenerator) -> Value {
    let data = reference::<crate::event::UserInputReceived>(generator);
    json!({
        "name": "user_input_received_bare",
        "title": "user_input_received (bare)",
        "summary": "A user said something: the data alone, without an envelope.",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                "Nats-Msg-Id": {"type": "string", "description": "The workflow id, if the data names none."},
                "traceparent": reference::<TraceParent>(generator),
            },
        },
        "payload": data,
        "bindings": {"nats": {}},
    })
}

fn binary_input(generator: &mut SchemaGenerator) -> Value {
    let data = reference::<crate::event::UserInputReceived>(generator);
    json!({
        "name": "user_input_received_binary",
        "title": "user_input_received (binary CloudEvent)",
        "summary": "A user said something: the data as the body, the attributes as percent-encoded headers.",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": ["ce-specversion", "ce-type", "ce-id", "ce-source"],
            "properties": {
                "ce-specversion": {"const": "1.0"},
                "ce-type": {"const": EventType::UserInputReceived},
                "ce-id": {"type": "string", "description": "The workflow id, if the data names none."},
                "ce-source": {"type": "string"},
                "ce-dataschema": {"type": "string"},
                "ce-traceparent": reference::<TraceParent>(generator),
            },
        },
        "payload": data,
        "bindings": {"nats": {}},
    })
}

fn dead_letter(generator: &mut SchemaGenerator) -> Value {
    json!({
        "name": "dead_letter",
        "title": "dead letter",
        "summary": "A message that no stage can handle: its body byte for byte, its headers, and what is wrong with \
            it. Original headers that the server or a reader would act on are kept with `Original-` before their name.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "required": [
                dead_letter::STAGE, dead_letter::CODE, dead_letter::ERROR, dead_letter::ATTEMPTS,
                dead_letter::SUBJECT, dead_letter::SEQUENCE, dead_letter::TIME,
            ],
            "properties": {
                dead_letter::STAGE: reference::<StageName>(generator),
                dead_letter::CODE: reference::<FailureCode>(generator),
                dead_letter::ERROR: {"type": "string", "description": "What was wrong, on one line, for a person."},
                dead_letter::ATTEMPTS: {
                    "type": "string", "pattern": "^[0-9]+$",
                    "description": "How often the message had been delivered.",
                },
                dead_letter::SUBJECT: {"type": "string", "description": "The subject it came from."},
                dead_letter::SEQUENCE: {
                    "type": "string", "pattern": "^[0-9]+$", "description": "Its sequence in the event stream.",
                },
                dead_letter::TIME: reference::<Timestamp>(generator),
                dead_letter::STREAM: {"type": "string", "description": "The stream that it is in."},
                dead_letter::CONSUMER: {"type": "string", "description": "The consumer that delivered it."},
                dead_letter::WORKER: {
                    "type": "string", "description": "The process that buried it, as its connection is called.",
                },
            },
        },
        "payload": {"description": "The original body. It need not be JSON."},
        "bindings": {"nats": {}},
    })
}

fn breaker_moved(generator: &mut SchemaGenerator) -> Value {
    json!({
        "name": "breaker_moved",
        "title": "breaker moved",
        "summary": "A circuit breaker changed its state.",
        "contentType": "application/json",
        "payload": reference::<BreakerMoved>(generator),
        "bindings": {"nats": {}},
    })
}

fn live_frame(generator: &mut SchemaGenerator) -> Value {
    json!({
        "name": "live_frame",
        "title": "live frame",
        "summary": "A piece of an answer under way, or what became of it.",
        "contentType": "application/json",
        "payload": reference::<LiveFrame>(generator),
        "bindings": {"nats": {}},
    })
}

fn parameters() -> Value {
    let consumed = StageName::ALL.map(StageName::consumes);
    json!({
        "namespace": {
            "default": "throughline",
            "description": "`nats.namespace` in the configuration; separates environments that share a NATS account.",
        },
        "event_type": {"enum": consumed, "description": "Type of the event that could not be handled."},
        "stored_event_type": {"enum": EventType::ALL, "description": "Type of the event that was stored."},
        "session": {"description": format!("Stands for the session id: {TOKEN}.")},
        "workflow": {"description": format!("Stands for the workflow id: {TOKEN}.")},
    })
}

fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// A reference to a type's schema, which is put among the generator's definitions.
fn reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}
