//! The envelope: `CloudEvents` 1.0, structured JSON, with Throughline's extension attributes.
//! Format: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    EventData, EventKey, EventType, SessionId, StepPath, Subject, Timestamp, TraceParent, UserId, WorkflowId,
    version::{self, VersionError},
};

/// Everything about an event but its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// `CloudEvents` id. Deterministic, [`WorkflowId::event_id`], for everything a stage publishes.
    pub id: String,
    /// Who published it, for example `throughline/generation`.
    pub source: String,
    /// When it was published.
    pub time: Timestamp,
    /// The workflow it belongs to.
    pub workflow_id: WorkflowId,
    /// The session that the workflow belongs to.
    pub session_id: SessionId,
    /// The user that the session belongs to.
    pub user_id: UserId,
    /// The step that made it, for a type of which a workflow may have several.
    pub step: StepPath,
    /// Id of the event that caused this one.
    pub causation_id: Option<String>,
    /// The workflow's trace, with the publishing span as the parent.
    pub traceparent: TraceParent,
    /// Which attempt of the stage produced it, from 1.
    pub attempt: u32,
}

/// One event: envelope and data.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The envelope.
    pub meta: Meta,
    /// The data.
    pub data: EventData,
}

impl Event {
    /// Its type.
    pub fn event_type(&self) -> EventType {
        self.data.event_type()
    }

    /// Which event of its workflow it is.
    pub fn key(&self) -> EventKey {
        EventKey::of_step(self.event_type(), self.meta.step.clone())
    }

    /// Its address.
    pub fn subject(&self) -> Subject {
        Subject::new(self.key(), &self.meta.session_id, &self.meta.workflow_id)
    }
}

/// An event could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write event as JSON")]
pub struct EncodeError(#[from] serde_json::Error);

/// An event could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not the shape its type promises.
    #[error("not a readable event: {0}")]
    Json(#[from] serde_json::Error),
    /// A version this build does not read.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// No `data`, and no reference to it.
    #[error("event of type {0} has no data")]
    NoData(EventType),
}

/// An event as it is written. The generated JSON Schemas are derived from it, so the comments speak to users.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Written<'a, D> {
    /// Version of the `CloudEvents` specification.
    #[schemars(extend("const" = "1.0"))]
    specversion: &'static str,
    /// Id of the event, unique with `source`. What a stage publishes has `{workflow token}.{event type}`, so that
    /// publishing the same event twice is publishing it once.
    #[schemars(length(min = 1))]
    id: &'a str,
    /// Who published it, for example `throughline/generation`.
    #[schemars(length(min = 1), extend("format" = "uri-reference"))]
    source: &'a str,
    /// Type of the event.
    #[schemars(with = "String")]
    r#type: EventType,
    /// The workflow id again, where `CloudEvents` tools look for what an event is about.
    #[schemars(with = "String")]
    subject: &'a str,
    /// When it was published.
    time: Timestamp,
    /// Media type of `data`.
    #[schemars(with = "String", extend("const" = "application/json"))]
    datacontenttype: &'static str,
    /// Type and major version of `data`. A version that a reader does not know is refused, never guessed at.
    #[schemars(with = "String")]
    dataschema: String,
    /// The workflow it belongs to.
    #[schemars(with = "WorkflowId")]
    workflowid: &'a str,
    /// The session that the workflow belongs to.
    #[schemars(with = "SessionId")]
    sessionid: &'a str,
    /// The user that the session belongs to.
    #[schemars(with = "UserId")]
    userid: &'a str,
    /// The session id again: the `CloudEvents` partitioning extension. Events of one key belong in one order.
    #[schemars(with = "String")]
    partitionkey: &'a str,
    /// The step that made it, for types of which a workflow may have several events.
    #[serde(skip_serializing_if = "str::is_empty")]
    #[schemars(skip)]
    step: &'a str,
    /// Id of the event that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    causationid: Option<&'a str>,
    /// The workflow's trace, with the publishing span as the parent.
    traceparent: TraceParent,
    /// Which attempt of the stage produced it, from 1.
    #[schemars(range(min = 1))]
    attempt: u32,
    /// Where the whole event is stored, for events over 64 KiB; they have no `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "uri-reference"))]
    dataref: Option<&'a str>,
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "D")]
    data: Option<&'a D>,
}

fn write<D: Serialize>(
    meta: &Meta,
    r#type: EventType,
    data: Option<&D>,
    dataref: Option<&str>,
    expected_bytes: usize,
) -> Result<Vec<u8>, EncodeError> {
    // A large event that grows as it is written is copied again and again, and is in memory up to three times.
    let mut written = Vec::with_capacity(expected_bytes + ENVELOPE_BYTES);
    serde_json::to_writer(
        &mut written,
        &Written {
            specversion: "1.0",
            id: &meta.id,
            source: &meta.source,
            r#type,
            subject: meta.workflow_id.as_str(),
            time: meta.time,
            datacontenttype: "application/json",
            dataschema: version::data_schema(r#type),
            workflowid: meta.workflow_id.as_str(),
            sessionid: meta.session_id.as_str(),
            userid: meta.user_id.as_str(),
            partitionkey: meta.session_id.as_str(),
            step: meta.step.as_str(),
            causationid: meta.causation_id.as_deref(),
            traceparent: meta.traceparent,
            attempt: meta.attempt,
            dataref,
            data,
        },
    )?;
    Ok(written)
}

/// Room for an envelope and small data, in bytes.
const ENVELOPE_BYTES: usize = 1536;

/// Writes an event as structured-mode `CloudEvents` JSON.
pub fn encode(event: &Event) -> Result<Vec<u8>, EncodeError> {
    let r#type = event.event_type();
    let meta = &event.meta;
    match &event.data {
        EventData::UserInputReceived(data) => write(meta, r#type, Some(data), None, 0),
        EventData::InputValidated(data) => write(meta, r#type, Some(data), None, 0),
        EventData::ContextRetrieved(data) => write(meta, r#type, Some(data), None, 0),
        EventData::ExternalDataFetched(data) => {
            let answers = data.external.values().filter_map(|result| result.data.as_ref());
            write(meta, r#type, Some(data), None, answers.map(|answer| answer.as_str().len()).sum())
        }
        EventData::ResponseGenerated(data) => {
            let prompt: usize = data.prompt.messages.iter().map(|message| message.content.len()).sum();
            // JSON in a text has its quotes escaped. What is not written takes no memory.
            write(meta, r#type, Some(data), None, prompt + prompt / 2)
        }
        EventData::InteractionSaved(data) => write(meta, r#type, Some(data), None, 0),
        EventData::WorkflowFailed(data) => write(meta, r#type, Some(data), None, 0),
    }
}

/// Writes the envelope of an event whose data is stored elsewhere, with the `CloudEvents` `dataref` extension.
pub fn encode_reference(event: &Event, dataref: &str) -> Result<Vec<u8>, EncodeError> {
    write::<()>(&event.meta, event.event_type(), None, Some(dataref), 0)
}

#[derive(Deserialize)]
struct Read<'a> {
    specversion: String,
    id: String,
    source: String,
    r#type: EventType,
    time: Timestamp,
    dataschema: Option<String>,
    workflowid: WorkflowId,
    sessionid: SessionId,
    userid: UserId,
    #[serde(borrow, default)]
    step: Option<&'a RawValue>,
    #[serde(default)]
    causationid: Option<String>,
    traceparent: TraceParent,
    #[serde(default = "first_attempt")]
    attempt: u32,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

fn first_attempt() -> u32 {
    1
}

/// Types without steps may have an attribute of that name that somebody else gave them: publishers of inputs, for one.
fn step_of(event_type: EventType, step: Option<&RawValue>) -> Result<StepPath, DecodeError> {
    match step {
        Some(step) if event_type.has_steps() => Ok(serde_json::from_str(step.get())?),
        Some(_) | None => Ok(StepPath::NONE),
    }
}

/// Reads an event that [`encode`] wrote, of any type.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let read: Read<'_> = serde_json::from_slice(bytes)?;
    version::check_spec(&read.specversion)?;
    version::check_schema(read.dataschema.as_deref())?;
    let data = read.data.ok_or(DecodeError::NoData(read.r#type))?.get();
    let data = match read.r#type {
        EventType::UserInputReceived => EventData::UserInputReceived(serde_json::from_str(data)?),
        EventType::InputValidated => EventData::InputValidated(serde_json::from_str(data)?),
        EventType::ContextRetrieved => EventData::ContextRetrieved(serde_json::from_str(data)?),
        EventType::ExternalDataFetched => EventData::ExternalDataFetched(serde_json::from_str(data)?),
        EventType::ResponseGenerated => EventData::ResponseGenerated(serde_json::from_str(data)?),
        EventType::InteractionSaved => EventData::InteractionSaved(serde_json::from_str(data)?),
        EventType::WorkflowFailed => EventData::WorkflowFailed(serde_json::from_str(data)?),
    };
    let meta = Meta {
        id: read.id,
        source: read.source,
        time: read.time,
        workflow_id: read.workflowid,
        session_id: read.sessionid,
        user_id: read.userid,
        step: step_of(read.r#type, read.step)?,
        causation_id: read.causationid,
        traceparent: read.traceparent,
        attempt: read.attempt,
    };
    Ok(Event { meta, data })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOLDEN: &[u8] = include_bytes!("../golden/v1/context_retrieved.json");

    #[test]
    fn an_event_of_a_step_says_so_and_others_have_no_word_of_steps() {
        let mut event = decode(GOLDEN).unwrap();
        let written: serde_json::Value = serde_json::from_slice(&encode(&event).unwrap()).unwrap();
        assert_eq!(written.get("step"), None);
        event.meta.step = "draft-2".parse().unwrap();
        let written: serde_json::Value = serde_json::from_slice(&encode(&event).unwrap()).unwrap();
        assert_eq!(written["step"], "draft-2");
        let key = EventKey::of_step(EventType::ContextRetrieved, "draft-2".parse().unwrap());
        assert_eq!(event.key(), key);
        let workflow = event.meta.workflow_id.token();
        assert_eq!(event.meta.workflow_id.event_id(key), format!("{workflow}.context_retrieved.draft-2"));
    }

    #[test]
    fn an_attribute_called_step_of_a_type_without_steps_is_somebody_elses() {
        let mut written: serde_json::Value = serde_json::from_slice(GOLDEN).unwrap();
        let without = decode(written.to_string().as_bytes()).unwrap();
        for theirs in
            [serde_json::json!("draft"), serde_json::json!({"no": "path"}), serde_json::json!("> *")]
        {
            written["step"] = theirs;
            let read = decode(written.to_string().as_bytes()).unwrap();
            assert_eq!(read, without);
            assert!(read.subject().is_of(written.to_string().as_bytes()));
        }
    }
}
