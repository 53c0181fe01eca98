//! How a workflow ended.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_actors::{model::client::counts, ports::bus::BusError};
use throughline_schemas::{
    EventData, EventType, FailureCode, SessionId, Subject, UserId, WorkflowFailed, WorkflowId, decode,
};

use crate::bus::nats::{NatsBus, StoredEvent};

/// How a workflow ended. Read leniently: a code that a later version added is text like any other.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It was answered, and the interaction is saved.
    Saved(Box<Saved>),
    /// It failed.
    Failed(Box<Failed>),
}

/// What `interaction_saved` says of the answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Saved {
    /// The answer, with its model and provider.
    pub response: Value,
    /// Tokens of the answering call; null if unknown.
    #[serde(default)]
    pub usage: Value,
    /// What all attempts cost, in dollars, as a decimal text; null if unknown.
    #[serde(default)]
    pub cost_usd: Value,
    /// Names of the data sources whose data the answer lacks, because they failed.
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// `workflow_failed`, as far as it is understood here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    /// For a program: a `FailureCode`, or one that a later version added.
    pub code: String,
    /// The stage that failed.
    pub stage: String,
    /// What went wrong, for a person.
    pub message: String,
    /// How many attempts were made in all.
    pub attempts: u32,
    /// Whether the same text may succeed if it is published again, under a new workflow id.
    pub retryable: bool,
    /// Whether a call may have been made, and billed.
    pub may_have_happened: bool,
}

/// The event is not an end, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// It is another event.
    #[error("the event on {0} is not the end of a workflow")]
    NotAnEnd(String),
    /// It is no JSON, or lacks what every version has.
    #[error("the event on {subject} cannot be read: {source}")]
    Unreadable {
        /// Where it stands.
        subject: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl End {
    /// Reads the event that is an end.
    pub fn read(event: &StoredEvent) -> Result<Self, EndError> {
        #[derive(Deserialize)]
        struct Envelope<T> {
            data: T,
        }
        let unreadable = |source| EndError::Unreadable { subject: event.subject.clone(), source };
        match event.event_type() {
            Some(EventType::InteractionSaved) => {
                let envelope: Envelope<_> = serde_json::from_slice(&event.body).map_err(unreadable)?;
                Ok(Self::Saved(Box::new(envelope.data)))
            }
            Some(EventType::WorkflowFailed) => {
                let envelope: Envelope<Failed> = serde_json::from_slice(&event.body).map_err(unreadable)?;
                let attempts = match decode(&event.body).map(|event| event.data) {
                    Ok(EventData::WorkflowFailed(known)) => attempts_made(&known),
                    // A later version's: what it says itself is the best there is.
                    Ok(_) | Err(_) => 0,
                };
                let attempts = u32::try_from(attempts).unwrap_or(u32::MAX).max(envelope.data.attempts);
                Ok(Self::Failed(Box::new(Failed { attempts, ..envelope.data })))
            }
            _ => Err(EndError::NotAnEnd(event.subject.clone())),
        }
    }

    /// What to count an end as that says nothing.
    pub(crate) fn unreadable(error: &EndError) -> Self {
        Self::Failed(Box::new(Failed {
            code: FailureCode::UnreadableEvent.to_string(),
            stage: "publish".to_owned(),
            message: error.to_string(),
            attempts: 1,
            retryable: false,
            may_have_happened: true,
        }))
    }
}

impl Saved {
    /// The answer, empty if there is none.
    pub fn text(&self) -> &str {
        self.response.get("text").and_then(Value::as_str).unwrap_or_default()
    }
}

/// How many attempts a failure tells of: those of all models together. What a stage counts are those at one model.
pub(crate) fn attempts_made(failed: &WorkflowFailed) -> usize {
    let logged = failed.attempt_log.iter().filter(|attempt| counts(attempt)).count();
    let earlier = usize::try_from(failed.earlier_deliveries).unwrap_or(usize::MAX);
    let told = usize::try_from(failed.attempts).unwrap_or(usize::MAX);
    logged.saturating_add(earlier).max(told)
}

/// The end that is stored of a workflow of this session, if it has ended.
pub(crate) async fn stored(
    bus: &NatsBus,
    session: &SessionId,
    workflow: &WorkflowId,
) -> Result<Option<StoredEvent>, BusError> {
    for address in Subject::ends_of(session, workflow) {
        if let Some(end) = bus.last(&address).await? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

/// Whether an end is that of a message of this user: a session may have several users, and an id may be another's.
pub(crate) fn is_of(event: &StoredEvent, user: &UserId) -> bool {
    #[derive(Deserialize)]
    struct Envelope {
        userid: Option<String>,
    }
    // What cannot be read is told as such.
    serde_json::from_slice::<Envelope>(&event.body)
        .map_or(true, |envelope| envelope.userid.is_none_or(|of| of == user.as_str()))
}
