//! The database: who may run, what is known, what was said.
//!
//! The store decides the two things that no single worker can: which turn of a session runs (one at a time, in
//! stream order) and how a workflow ended (once). Obligations, checked by `ports::contract::store`:
//! - A workflow id is admitted once, for ever; whoever comes later is told so.
//! - At most one turn of a session is running; turns start in the order of their input sequence.
//! - A turn ends once, as saved or as failed; ending it starts the next one of its session in the same transaction.
//! - Every method is idempotent: called again with the same argument it changes nothing and says the same.

use async_trait::async_trait;
use throughline_schemas::{
    SessionId, Timestamp, Usage, Usd, UserId, WorkflowId,
    event::{context::Context, generation::Response, input::Request},
};

use super::{Classify, Fault, Health};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time. A write may have happened.
    #[error("the database did not answer: {context}")]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Another process holds its lock, or its disk is full; nothing was written.
    #[error("the database is busy: {context}")]
    Busy {
        /// What was being done.
        context: &'static str,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The statement failed for a reason that will not go away: a bug, or a database of another version.
    #[error("the database refused: {context}; check its version with `throughline doctor`")]
    Refused {
        /// What was being done.
        context: &'static str,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Classify for StoreError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unavailable { .. } => Fault::Unknown,
            Self::Busy { .. } => Fault::Transient { wait_at_least: None },
            Self::Refused { .. } => Fault::Permanent,
        }
    }

    fn health(&self) -> Health {
        match self {
            Self::Unavailable { .. } | Self::Busy { .. } => Health::Failed,
            Self::Refused { .. } => Health::Answered,
        }
    }
}

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
    /// When it was asked for.
    pub at: Timestamp,
    /// What to do with it.
    pub verdict: Verdict,
}

/// Whether the input may run.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It may; `event` is its encoded `input_validated`, published when its turn comes.
    Accepted {
        /// Encoded event.
        event: Vec<u8>,
    },
    /// It is invalid: the turn is recorded as failed at once and takes no place in the session's order.
    Refused,
}

/// What became of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It is (still) its turn: publish `input_validated`.
    Running,
    /// An earlier turn of the session is open; whoever ends that one publishes.
    Waiting,
    /// A refused input, recorded (before or now) as failed: publish `workflow_failed`.
    Failed,
    /// This very message was admitted before and its workflow has ended.
    Ended,
    /// Another message has this workflow id: nothing to do.
    Duplicate,
}

/// A finished interaction, to be stored as one row.
#[derive(Debug, Clone)]
pub struct Interaction {
    /// The workflow; primary key.
    pub workflow_id: WorkflowId,
    /// Id of the row for the outside.
    pub interaction_id: String,
    /// Its session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// The validated request.
    pub request: Request,
    /// The answer.
    pub response: Response,
    /// Tokens of the answering call.
    pub usage: Usage,
    /// Cost, if known.
    pub cost_usd: Option<Usd>,
    /// When it is saved.
    pub saved_at: Timestamp,
    /// When the answer was generated.
    pub generated_at: Timestamp,
}

/// How a turn stands after an attempt to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As asked, now or before: publish the event that says so.
    AsAsked,
    /// The other way, before: publish nothing.
    Otherwise,
}

/// A turn that was asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// How it ended.
    pub ending: Ending,
    /// The encoded `input_validated` of the session's turn that was waiting and runs now, to be published
    /// (idempotently: it may have been published before).
    pub next: Option<Vec<u8>>,
}

/// The database.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Opens turns, all or none, in one transaction; the answers are in the order of the questions.
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError>;
    /// The user's preferences, and the latest `turns` saved turns of this user in this session in the order of
    /// their inputs, oldest first.
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError>;
    /// Stores the interaction and ends its turn as saved, in one transaction. A turn that was never admitted is
    /// stored all the same; one that failed, or whose interaction was stored before, is not stored again.
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError>;
    /// Ends a turn as failed. A turn that was never admitted is recorded as failed in `session` (an input that no
    /// worker could handle): whichever message comes with that workflow id later has ended, since nobody knows
    /// which message it was.
    async fn fail(
        &self,
        workflow: &WorkflowId,
        session: &SessionId,
        at: Timestamp,
    ) -> Result<Closed, StoreError>;
    /// Answers if the database does.
    async fn ping(&self) -> Result<(), StoreError>;
}
