//! Retrying and dropping.

use std::fmt;

use serde::{Deserialize, Serialize};
use throughline_actors::ports::{
    bus::{BusError, EventLog, Published},
    clock::Clock,
};
use throughline_schemas::{EncodeError, EventType, FailureCode, IngressError, StageName, Subject, Timestamp};

use super::{Letter, repeat};
use crate::{
    bus::nats::NatsBus,
    system::{SystemClock, host_name},
};

/// What to do with a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Try its message again.
    Retried,
    /// Nothing more.
    Dropped,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retried => "retried",
            Self::Dropped => "dropped",
        })
    }
}

/// What became of a letter, kept in the stream of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The letter's id.
    pub letter: u64,
    /// What was done.
    pub action: Action,
    /// When.
    pub at: Timestamp,
    /// On which machine.
    pub by: String,
    /// The stage that had dead-lettered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<FailureCode>,
    /// The workflow that had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The workflow that tries it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}

/// What an action came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What is on record now.
    pub record: Record,
    /// It had been done before, wholly or in part.
    pub again: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The bus did not let it happen; trying again is safe.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The message cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Trying it again would answer a second time.
    #[error("workflow {0} has been saved all the same, so there is nothing to retry; drop the letter")]
    Saved(String),
    /// Half a message cannot be tried again.
    #[error(
        "only the beginning of its {0} bytes was kept, because the store of large bodies was full; publish the message again, \
         and drop the letter"
    )]
    Cut(u64),
    /// Trying it again would dead-letter it again.
    #[error(
        "no stage can read it ({0}), so a retry would be buried again; publish it mended, and drop the letter"
    )]
    Unreadable(#[source] IngressError),
    /// It was there a moment ago, and what became of it is not recorded, or something else did.
    #[error("it is not there any more; `throughline dead show` says what became of it")]
    Gone,
}

/// Reads a letter and acts on it. One to which another process did the same meanwhile is done.
pub async fn act_on(bus: &NatsBus, letter: u64, action: Action) -> Result<Outcome, ActionError> {
    if let Some(stored) = bus.letter(letter).await? {
        return act(bus, &Letter::read(stored), action).await;
    }
    match record_of(bus, letter).await? {
        Some(record) if record.action == action => Ok(Outcome { record, again: true }),
        Some(_) | None => Err(ActionError::Gone),
    }
}

/// Retries or drops a letter. Idempotent: a letter that was retried is one workflow, however often, and by however
/// many, it is retried.
async fn act(bus: &NatsBus, letter: &Letter, action: Action) -> Result<Outcome, ActionError> {
    let mut again = false;
    let retry = match action {
        Action::Dropped => None,
        Action::Retried => {
            if let Some(bytes) = letter.cut_from {
                return Err(ActionError::Cut(bytes));
            }
            if let Some(error) = letter.unreadable() {
                return Err(ActionError::Unreadable(error));
            }
            let repeat = repeat(letter, bus.namespace())?;
            if let Some((session, workflow)) = &repeat.failed {
                let saved = Subject::new(EventType::InteractionSaved, session, workflow);
                if bus.exists(&saved).await? {
                    return Err(ActionError::Saved(workflow.to_string()));
                }
            }
            again = bus.publish_repeat(&repeat, letter.id).await? == Published::Already;
            repeat.workflow
        }
    };
    let record = Record {
        letter: letter.id,
        action,
        at: SystemClock.now(),
        by: host_name(),
        stage: letter.stage,
        code: letter.code,
        workflow: letter.workflow().map(Into::into),
        retry: retry.map(Into::into),
    };
    let written = serde_json::to_vec(&record).map_err(EncodeError::from)?;
    again |= bus.publish_record(letter.id, written.into()).await? == Published::Already;
    bus.remove_letter(letter.id).await?;
    Ok(Outcome { record, again })
}

/// What became of a letter that is not there any more.
pub async fn record_of(bus: &NatsBus, letter: u64) -> Result<Option<Record>, BusError> {
    let found = bus.letter_record(letter).await?;
    Ok(found.and_then(|stored| serde_json::from_slice(&stored.body).ok()))
}
