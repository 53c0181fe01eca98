//! Typed failures: what failed, may it have happened, what could be done next.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    StageName, WorkflowId,
    event::{external::SourceResult, generation::Attempt},
};

/// Why a workflow failed. The set grows within a major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The input is not acceptable; the message says what to change.
    InvalidInput,
    /// The provider refused the request (bad request, credentials, model unknown, content policy).
    ModelRejected,
    /// The provider could not be reached, failed, or its breaker is open.
    ModelUnavailable,
    /// The provider kept answering "too many requests".
    RateLimited,
    /// The call exceeded its time limit; the provider may have answered and charged.
    TimedOut,
    /// The provider's answer was incomplete or not understandable.
    BadResponse,
    /// A data source that the answer requires did not give its data; `external` says why.
    SourceUnavailable,
    /// The database did not answer.
    StoreUnavailable,
    /// An event could not be read: wrong version or not the shape its type promises.
    UnreadableEvent,
    /// Handling this message panicked or killed its worker every time.
    Poison,
    /// The session was busy, and the message asked to be rejected then.
    SessionBusy,
    /// The session belongs to another user, and only its first user may speak in it (`sessions.owner`).
    NotSessionOwner,
    /// Its user had as many open workflows as one user may have (`users.open`).
    TooManyOpen,
    /// A later message of the session asked to interrupt it; the message names that one's workflow.
    Interrupted,
    /// Its text is part of another turn of the session; the message names that one's workflow.
    Merged,
    /// It ran longer than a turn may, and its session goes on without it.
    Stalled,
    /// What a stage made is larger than what can be stored; the message that it was made of is kept as a dead letter.
    ResultTooLarge,
    /// The prompt template makes no prompt of this message; the message says where. (While it makes none of any message,
    /// workflows wait.)
    PromptFailed,
    /// Its workflow id belongs to another message: of another user, session, text or source. It was not run.
    Conflict,
    /// It was published again after its workflow had ended, and how that ended is not kept any more.
    Gone,
    /// A bug in Throughline; the message and the log say where.
    Internal,
    /// A code of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

impl FailureCode {
    /// The code as it is written in events and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::ModelRejected => "model_rejected",
            Self::ModelUnavailable => "model_unavailable",
            Self::RateLimited => "rate_limited",
            Self::TimedOut => "timed_out",
            Self::BadResponse => "bad_response",
            Self::SourceUnavailable => "source_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::UnreadableEvent => "unreadable_event",
            Self::Poison => "poison",
            Self::SessionBusy => "session_busy",
            Self::NotSessionOwner => "not_session_owner",
            Self::TooManyOpen => "too_many_open",
            Self::Interrupted => "interrupted",
            Self::Merged => "merged",
            Self::Stalled => "stalled",
            Self::ResultTooLarge => "result_too_large",
            Self::PromptFailed => "prompt_failed",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Internal => "internal",
            Self::Unrecognised => "unrecognised",
        }
    }
}

/// Who ended a workflow; it tells what the stage means that its failure names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// That stage, as the result of its work.
    Stage,
    /// Nobody worked: the message that was that stage's to handle was buried.
    DeadLetter,
    /// Something beside the journey, wherever the workflow stood: only its events tell where.
    Outside,
}

impl FailureCode {
    /// Who ends a workflow with this code.
    pub fn ended_by(self) -> EndedBy {
        match self {
            // Busy, merged, not its owner and too many, too: the input stage says so of its own input, before anything begins.
            Self::InvalidInput
            | Self::SessionBusy
            | Self::NotSessionOwner
            | Self::TooManyOpen
            | Self::Merged
            | Self::Conflict
            | Self::Gone
            | Self::ModelRejected
            | Self::ModelUnavailable
            | Self::RateLimited
            | Self::TimedOut
            | Self::BadResponse
            | Self::PromptFailed
            | Self::SourceUnavailable => EndedBy::Stage,
            // Nobody knows what a later version's code means; its stage is the best there is.
            Self::StoreUnavailable
            | Self::UnreadableEvent
            | Self::Poison
            | Self::ResultTooLarge
            | Self::Internal
            | Self::Unrecognised => EndedBy::DeadLetter,
            Self::Interrupted | Self::Stalled => EndedBy::Outside,
        }
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `workflow_failed`: a typed failure; the workflow is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowFailed {
    /// What kind of failure it is.
    pub code: FailureCode,
    /// The stage that gave up.
    pub stage: StageName,
    /// For a person: what went wrong and what to do next. Contains no secret.
    pub message: String,
    /// How many times the stage tried.
    pub attempts: u32,
    /// Whether publishing the same input again later could succeed.
    pub retryable: bool,
    /// Whether an effect (a paid call, a stored row) may have happened although the workflow failed.
    pub may_have_happened: bool,
    /// The workflow that goes on in its place: the one that interrupted it, or the one that carries its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<WorkflowId>,
    /// How many earlier deliveries to a worker there were of whose calls nothing is known: their worker died.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earlier_deliveries: u32,
    /// The calls that were made, where the failing stage makes recorded calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempt_log: Vec<Attempt>,
    /// Of `source_unavailable`: what each data source answered, or why it did not, by source name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external: BTreeMap<String, SourceResult>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
