//! What is asked of a store when inputs arrive, and what it answers.

use throughline_schemas::{FailureCode, SessionId, Timestamp, UserId, WorkflowId, event::input::WhenBusy};

use super::{FailureRecord, Fingerprint, TurnState, UserLimits};

/// A request to open a turn.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Its session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Stream sequence of its input: its place in the session, and the identity of the message.
    pub input_sequence: u64,
    /// What it says, by which a message that uses its workflow's id again is distinguished from another one.
    pub fingerprint: Fingerprint,
    /// When it was asked for.
    pub at: Timestamp,
    /// What to do with it.
    pub verdict: Verdict,
    /// What its user may take.
    pub limits: UserLimits,
}

/// Who may speak in a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionOwner {
    /// Everybody who knows its id: a channel, a case that several work on.
    #[default]
    Any,
    /// The user whose turn was the first of those that are on record. Messages of others are refused, whatever they ask
    /// for. A message that was refused, for this or because it is invalid, makes no user the first.
    FirstUser,
}

impl SessionOwner {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Any, Self::FirstUser];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::FirstUser => "first_user",
        }
    }
}

/// Whether the input may run.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It may.
    Accepted {
        /// Its encoded `input_validated`, published when its turn comes. Kept until the turn has ended.
        event: Vec<u8>,
        /// What to do if an earlier turn of its session is open.
        when_busy: WhenBusy,
        /// Who may speak in its session.
        owner: SessionOwner,
    },
    /// It is invalid: the turn is recorded as failed at once and takes no place in the session's order.
    Refused {
        /// Why.
        failure: FailureRecord,
    },
}

/// What became of an admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// How its turn stands.
    pub result: AdmissionResult,
    /// The encoded `input_validated` of the turn that it interrupted: publish the `workflow_failed` of that one, which
    /// may have been published before.
    pub interrupted: Option<Vec<u8>>,
    /// What the running turn of its session began with, whichever turn that is: publish it, idempotently, instead of
    /// its own event. Only for a message that asked to interrupt or to be merged.
    pub opening: Option<Opening>,
}

impl From<AdmissionResult> for Admitted {
    fn from(result: AdmissionResult) -> Self {
        Self { result, interrupted: None, opening: None }
    }
}

/// How the turn of an admission stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionResult {
    /// It is (still) its turn: publish `input_validated`.
    Running,
    /// An earlier turn of the session is open; the stage that ends that one publishes.
    Waiting,
    /// It is its turn, and its user has its share of running turns: the starter publishes.
    Held,
    /// A refused input, recorded (before or now) as failed: publish `workflow_failed`.
    Refused,
    /// The session was busy and it did not want to wait; recorded as failed: publish `workflow_failed`.
    Rejected,
    /// The session belongs to another user; recorded as failed: publish `workflow_failed`.
    NotOwner,
    /// Its user has as many open turns as it may have; recorded as failed: publish `workflow_failed`.
    TooManyOpen,
    /// Its text has become part of another turn; recorded as failed: publish `workflow_failed`.
    Merged {
        /// The workflow of that turn.
        into: WorkflowId,
    },
    /// This very message was admitted before and its workflow has ended.
    Ended,
    /// The same content was published before under this workflow id, as another message: nothing to do.
    Repeated {
        /// Its workflow has ended.
        ended: bool,
    },
    /// A message with another content has this workflow id: nothing to do.
    Conflict {
        /// The session of that one.
        session_id: SessionId,
    },
}

/// What a turn begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Its encoded `input_validated`, as it was admitted.
    pub event: Vec<u8>,
    /// Those of the messages that were merged into it, in the order of the stream.
    pub merged: Vec<Vec<u8>>,
}

/// What a store has on record about the message that has a workflow id.
#[derive(Debug)]
pub struct Holder<'a> {
    /// Its place in the stream; unknown of some turns of the first version.
    pub input_sequence: Option<u64>,
    /// Its session.
    pub session_id: &'a SessionId,
    /// Its user; unknown of some turns of earlier versions.
    pub user_id: Option<&'a UserId>,
    /// What it says; unknown of turns of earlier versions, and of those that ended before they were admitted.
    pub fingerprint: Option<Fingerprint>,
    /// How its turn stands.
    pub state: TurnState,
    /// Why it failed, if it did.
    pub code: Option<FailureCode>,
}

impl Admission {
    /// What to say to this message if another one has its workflow id; `None` if `holder` is this very message.
    ///
    /// Messages are one if they have one place in the stream and say the same. A place alone does not make them one: a
    /// stream may have been recreated. But whether an input is acceptable may change with the limits, and what is not
    /// acceptable has no text to compare.
    pub fn against(&self, holder: &Holder<'_>) -> Option<AdmissionResult> {
        let says_the_same = match holder.fingerprint {
            Some(fingerprint) => fingerprint.says_the_same(&self.fingerprint),
            None => {
                *holder.session_id == self.session_id
                    && holder.user_id.is_none_or(|user| *user == self.user_id)
            }
        };
        let is_comparable = match &self.verdict {
            Verdict::Accepted { .. } => holder.code != Some(FailureCode::InvalidInput),
            Verdict::Refused { .. } => false,
        };
        let in_its_place = holder.input_sequence.is_none_or(|sequence| sequence == self.input_sequence);
        if in_its_place && (says_the_same || !is_comparable) {
            None
        } else if says_the_same {
            Some(AdmissionResult::Repeated { ended: holder.state.is_end() })
        } else {
            Some(AdmissionResult::Conflict { session_id: holder.session_id.clone() })
        }
    }
}
