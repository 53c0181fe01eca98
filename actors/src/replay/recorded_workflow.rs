//! One workflow as it was stored.

use std::collections::BTreeMap;

use bytes::Bytes;
use throughline_schemas::{
    DecodeError, EndedBy, Event, EventData, EventKey, EventType, FailureCode, StageName, Timestamp, Tokens,
    WorkflowId, decode,
};

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The subject it was published on.
    pub subject: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
    /// Its sequence in the event stream.
    pub sequence: u64,
    /// When the stream stored it.
    pub stored_at: Timestamp,
}

/// An event with the message that carried it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The message.
    pub message: Message,
    /// What it says.
    pub event: Event,
}

/// A recorded message cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the message of sequence {sequence} cannot be read as an event")]
pub struct RecordedWorkflowError {
    /// Which one.
    pub sequence: u64,
    /// Why.
    #[source]
    pub source: DecodeError,
}

/// One workflow as it was stored.
#[derive(Debug, Clone)]
pub struct RecordedWorkflow {
    /// The workflow.
    pub workflow: WorkflowId,
    input: Option<Message>,
    events: BTreeMap<EventKey, Stored>,
}

/// A result and what it resulted from.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// The stage that made it.
    pub stage: StageName,
    /// The message that the stage was given.
    pub cause: &'a Message,
    /// The same as an event; `None` for an input, which may have any form.
    pub cause_event: Option<&'a Event>,
    /// What it published.
    pub result: &'a Stored,
}

/// Why a result is taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReplayed {
    /// The workflow was ended from outside its stages: its message was dead-lettered, it stalled, or a later message
    /// interrupted it.
    FromOutside(FailureCode),
    /// What it resulted from is not in the recording: it has expired, or was not selected.
    CauseMissing(EventType),
    /// A failure that was published from what the database kept of it, which has not the calls that were made.
    CallsMissing(FailureCode),
}

impl RecordedWorkflow {
    /// Reads the messages of one workflow, in the order of the stream. Of several events of one key the first counts,
    /// as it did for the engine.
    pub fn read(
        workflow: WorkflowId,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Self, RecordedWorkflowError> {
        let mut recorded = Self { workflow, input: None, events: BTreeMap::new() };
        let mut inputs = Vec::new();
        for message in messages {
            if is_input(&message.subject) {
                inputs.push(message);
                continue;
            }
            match decode(&message.body) {
                Ok(event) => {
                    recorded.events.entry(event.key()).or_insert(Stored { message, event });
                }
                Err(source) => return Err(RecordedWorkflowError { sequence: message.sequence, source }),
            }
        }
        // Of several inputs with one workflow id, the one that was admitted counts.
        let admitted = recorded.events.values().find_map(|stored| stored.event.data.request());
        let at = admitted
            .and_then(|request| inputs.iter().position(|input| input.sequence == request.input_sequence));
        recorded.input = match at {
            Some(at) => Some(inputs.swap_remove(at)),
            None => inputs.into_iter().next(),
        };
        Ok(recorded)
    }

    /// The input, in whichever form it was published.
    pub fn input(&self) -> Option<&Message> {
        self.input.as_ref()
    }

    /// One event; never the input.
    pub fn event(&self, key: impl Into<EventKey>) -> Option<&Stored> {
        self.events.get(&key.into())
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<&Stored> {
        self.event(EventType::InteractionSaved).or_else(|| self.event(EventType::WorkflowFailed))
    }

    /// The message that a stage was given.
    pub fn given_to(&self, stage: StageName) -> Option<(&Message, Option<&Event>)> {
        if stage == StageName::Input {
            return self.input.as_ref().map(|input| (input, None));
        }
        self.event(stage.consumes()).map(|stored| (&stored.message, Some(&stored.event)))
    }

    /// Every result with its cause, in the order of the journey.
    pub fn links(&self) -> impl Iterator<Item = (&Stored, Result<Link<'_>, NotReplayed>)> {
        self.events.values().map(|result| (result, self.link(result)))
    }

    fn link<'a>(&'a self, result: &'a Stored) -> Result<Link<'a>, NotReplayed> {
        let stage = made_by(result)?;
        let Some((cause, cause_event)) = self.given_to(stage) else {
            return Err(NotReplayed::CauseMissing(stage.consumes()));
        };
        Ok(Link { stage, cause, cause_event, result })
    }
}

/// Which stage made an event, if one did.
pub(super) fn made_by(result: &Stored) -> Result<StageName, NotReplayed> {
    if let EventData::WorkflowFailed(failed) = &result.event.data {
        // A failing stage that makes recorded calls has made one, or its failure says why it was prevented.
        let lacks_calls = match failed.stage {
            StageName::External => failed.external.is_empty(),
            // Without a prompt no model is called.
            StageName::Generation => {
                failed.attempt_log.is_empty() && failed.code != FailureCode::PromptFailed
            }
            StageName::Input | StageName::Context | StageName::Persistence => false,
        };
        return match failed.code.ended_by() {
            EndedBy::Stage if lacks_calls => Err(NotReplayed::CallsMissing(failed.code)),
            EndedBy::Stage => Ok(failed.stage),
            EndedBy::DeadLetter | EndedBy::Outside => Err(NotReplayed::FromOutside(failed.code)),
        };
    }
    let made = result.event.event_type();
    StageName::publisher_of(made).ok_or(NotReplayed::CauseMissing(made))
}

/// Whether a message is an input; subjects of imported messages have another namespace, and no more parts.
fn is_input(subject: &str) -> bool {
    Tokens::of(subject).and_then(|of| of.event_type()) == Some(EventType::UserInputReceived)
}
