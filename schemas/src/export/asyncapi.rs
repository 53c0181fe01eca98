//! The `AsyncAPI` 3.0 document. It describes Throughline as one application: `receive` is what its stages take from
//! the bus, `send` what they put there.
//!
//! `AsyncAPI`'s NATS binding knows queue groups only and forbids everything else, so what concerns `JetStream` stands in
//! `x-jetstream`. Schemas are in draft 7, which is what tools for `AsyncAPI` understand without being told.

mod messages;

use serde_json::{Map, Value, json};

use crate::{EventType, MAJOR, STAGES, StageDefinition, StageName};

const BARE_INPUT: &str = "user_input_received_without_tokens";
const DEAD_LETTERS: &str = "dead_letters";
const BREAKERS: &str = "control_breaker";
const LIVE: &str = "live";
const STORED: &str = "stored";

pub(super) fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "id": format!("urn:throughline:events:v{MAJOR}"),
        "info": {
            "title": "Throughline",
            "version": format!("{MAJOR}.0.0"),
            "description": "Durable, replayable, event-driven LLM workflows over NATS JetStream. Publish \
                `user_input_received`; every workflow ends in exactly one of `interaction_saved` and \
                `workflow_failed`. Events are CloudEvents 1.0 in structured JSON. Readers ignore fields they do not \
                know and refuse versions they do not know.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {"nats": {
            "host": "127.0.0.1:4222",
            "protocol": "nats",
            "description": "nats-server 2.11 or later with JetStream; `nats.url` in the configuration, or NATS_URL.",
            "bindings": {"nats": {}},
        }},
        "channels": channels(),
        "operations": operations(),
        "components": messages::components(),
    })
}

fn channels() -> Map<String, Value> {
    let mut channels = Map::new();
    for event_type in EventType::ALL {
        channels.insert(event_type.to_string(), event_channel(event_type));
    }
    let event = EventType::UserInputReceived;
    channels.insert(
        BARE_INPUT.to_owned(),
        json!({
            "address": format!("{{namespace}}.v{MAJOR}.{event}"),
            "summary": "Where publishers may send input without computing tokens.",
            "parameters": parameters(&["namespace"]),
            "messages": messages_of(event),
            "bindings": {"nats": {}},
            "x-jetstream": {"stream": EVENTS},
            "x-sent-by": senders(event),
            "x-received-by": receivers(event),
        }),
    );
    channels.insert(
        DEAD_LETTERS.to_owned(),
        json!({
            "address": format!("{{namespace}}.dead.v{MAJOR}.{{event_type}}.{{session}}.{{workflow}}"),
            "summary": "Messages that no stage could handle, with the reason in the headers. A message that tells no \
                workflow is filed under the session `unknown` and its sequence in the event stream.",
            "parameters": parameters(&["namespace", "event_type", "session", "workflow"]),
            "messages": {"dead_letter": {"$ref": "#/components/messages/dead_letter"}},
            "bindings": {"nats": {}},
            "x-jetstream": {"stream": "{namespace}_DEAD"},
            "x-sent-by": StageName::ALL,
        }),
    );
    channels.insert(
        BREAKERS.to_owned(),
        json!({
            "address": "{namespace}.control.breaker",
            "summary": "Changes of circuit breakers, as they happen. Not stored: only who listens hears them.",
            "parameters": parameters(&["namespace"]),
            "messages": {"breaker_moved": {"$ref": "#/components/messages/breaker_moved"}},
            "bindings": {"nats": {}},
            "x-sent-by": StageName::ALL,
        }),
    );
    channels.insert(LIVE.to_owned(), live_channel());
    channels.insert(STORED.to_owned(), stored_channel());
    channels
}

/// What is said while an answer comes into being.
fn live_channel() -> Value {
    json!({
        "address": "{namespace}.live.{workflow}",
        "summary": "The answer of a workflow, as it comes. Not stored: only who listens hears it. Frames may be lost, \
            which their numbers tell; the whole answer is in `response_generated`.",
        "parameters": parameters(&["namespace", "workflow"]),
        "messages": {"live_frame": {"$ref": "#/components/messages/live_frame"}},
        "bindings": {"nats": {}},
        "x-sent-by": [StageName::Generation],
    })
}

/// What the server says of every event once the log has it.
fn stored_channel() -> Value {
    let messages: Map<String, Value> = EventType::ALL.into_iter().flat_map(messages_of).collect();
    json!({
        "address": format!("{{namespace}}.stored.v{MAJOR}.{{stored_event_type}}.{{session}}.{{workflow}}"),
        "summary": "Where to listen: every event, told by the server when it is stored, once and in the order of the \
            log. Not stored itself: only who listens hears it. The header `Nats-Sequence` is the event's place in the \
            log; who listens to everything sees by a gap that something was missed, and finds it there. A subscriber \
            of the events' own subjects also hears publishes that the log refused. An input that was published on \
            the subject without tokens is told on one without tokens.",
        "parameters": parameters(&["namespace", "stored_event_type", "session", "workflow"]),
        "messages": messages,
        "bindings": {"nats": {}},
        "x-jetstream": {"stream": EVENTS},
        "x-sent-by": ["nats-server"],
    })
}

/// The stream of events, whose name contains the namespace.
const EVENTS: &str = "{namespace}_EVENTS";

fn event_channel(event_type: EventType) -> Value {
    json!({
        "address": format!("{{namespace}}.v{MAJOR}.{event_type}.{{session}}.{{workflow}}"),
        "parameters": parameters(&["namespace", "session", "workflow"]),
        "messages": messages_of(event_type),
        "bindings": {"nats": {}},
        "x-jetstream": {"stream": EVENTS},
        "x-sent-by": senders(event_type),
        "x-received-by": receivers(event_type),
    })
}

/// The messages of an event's channel, by name; input comes in three forms.
fn messages_of(event_type: EventType) -> Map<String, Value> {
    let forms: &[&str] =
        if event_type == EventType::UserInputReceived { &["", "_binary", "_bare"] } else { &[""] };
    forms
        .iter()
        .map(|form| format!("{event_type}{form}"))
        .map(|name| (name.clone(), json!({"$ref": format!("#/components/messages/{name}")})))
        .collect()
}

fn parameters(names: &[&str]) -> Map<String, Value> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/parameters/{name}")})))
        .collect()
}

fn senders(event_type: EventType) -> Vec<&'static str> {
    match event_type {
        EventType::UserInputReceived => vec!["anyone"],
        EventType::WorkflowFailed => StageName::ALL.into_iter().map(StageName::as_str).collect(),
        EventType::InputValidated
        | EventType::ContextRetrieved
        | EventType::ExternalDataFetched
        | EventType::ResponseGenerated
        | EventType::InteractionSaved => {
            StageName::publisher_of(event_type).into_iter().map(StageName::as_str).collect()
        }
    }
}

fn receivers(event_type: EventType) -> Vec<&'static str> {
    StageName::consumer_of(event_type).into_iter().map(StageName::as_str).collect()
}

fn operations() -> Map<String, Value> {
    let mut operations = Map::new();
    for StageDefinition { stage, consumes: taken, publishes: sent, .. } in STAGES {
        operations.insert(format!("{stage}_receives_{taken}"), receives(stage, taken.as_str(), taken));
        operations.insert(
            format!("{stage}_sends_{sent}"),
            sends(sent.as_str(), sent.as_str(), &format!("The {stage} stage did its work.")),
        );
    }
    let input = EventType::UserInputReceived;
    operations.insert(format!("input_receives_{BARE_INPUT}"), receives(StageName::Input, BARE_INPUT, input));
    let failed = EventType::WorkflowFailed.as_str();
    operations.insert(
        format!("any_stage_sends_{failed}"),
        sends(failed, failed, "A stage gave up; the workflow is over."),
    );
    operations.insert(
        "any_stage_sends_dead_letter".to_owned(),
        sends(DEAD_LETTERS, "dead_letter", "A stage cannot handle a message, whatever it tries."),
    );
    operations.insert(
        "any_stage_sends_breaker_moved".to_owned(),
        sends(BREAKERS, "breaker_moved", "A circuit breaker changed its state."),
    );
    operations.insert(
        "generation_sends_live_frame".to_owned(),
        sends(LIVE, "live_frame", "A piece of the answer came, or it begins again, or it ended."),
    );
    operations
}

fn receives(stage: StageName, channel: &str, event_type: EventType) -> Value {
    let messages: Vec<Value> = messages_of(event_type).keys().map(|name| in_channel(channel, name)).collect();
    json!({
        "action": "receive",
        "channel": {"$ref": format!("#/channels/{channel}")},
        "messages": messages,
        "summary": format!("The {stage} stage does its work and acknowledges after its own event is stored."),
        "bindings": operation_binding(),
        "x-jetstream": {"stream": EVENTS, "consumer": format!("stage_{stage}"), "ack": "explicit"},
    })
}

fn sends(channel: &str, message: &str, summary: &str) -> Value {
    json!({
        "action": "send",
        "channel": {"$ref": format!("#/channels/{channel}")},
        "messages": [in_channel(channel, message)],
        "summary": summary,
        "bindings": operation_binding(),
    })
}

fn in_channel(channel: &str, message: &str) -> Value {
    json!({"$ref": format!("#/channels/{channel}/messages/{message}")})
}

/// No queue group: durable pull consumers share the work.
fn operation_binding() -> Value {
    json!({"nats": {"bindingVersion": "0.1.0"}})
}
