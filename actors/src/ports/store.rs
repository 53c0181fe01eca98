//! The database: who may run, what is known, what was said.
//!
//! The store decides the two things that no single worker can: which turn of a session runs (one at a time, in
//! stream order) and how a workflow ended (once). Obligations, checked by `ports::contract::store`:
//! - A workflow id is admitted once, for as long as its turn is on record; a later message learns that, and whether
//!   it says the same or something else.
//! - Two namespaces share nothing, whatever ids they use; a store is one namespace's.
//! - At most one turn of a session is running; turns start in the order of their input sequence.
//! - A turn ends once, as saved or as failed; ending it starts the next one of its session in the same transaction, or
//!   holds it while others are held ([`Share`]).
//! - A session in which turns wait and none runs waits for its first turn, which is held.
//! - Every method is idempotent: called again with the same argument it changes nothing and says the same. Only
//!   [`Store::start_held`] goes on where it ended.
//! - What was answered survives a loss of power.

mod admission;
mod end;
mod failure;
mod fingerprint;
mod listing;
mod share;
mod trouble;

use async_trait::async_trait;
use throughline_schemas::{
    SessionId, Timestamp, Usage, Usd, UserId, WorkflowId,
    event::{context::Context, generation::Response, input::Request},
};

pub use self::{
    admission::{Admission, AdmissionResult, Admitted, Holder, Opening, SessionOwner, Verdict},
    end::{FailedTurn, KnownEnd, RestoredTurn},
    failure::{FAILURE_RECORD_BYTES, FailureRecord, failure_code},
    fingerprint::Fingerprint,
    listing::{ListedTurn, OpenTurns, Tally, TurnState, TurnsQuery},
    share::{HELD_USERS, HeldQuery, HeldStarted, Share, UserLimits},
    trouble::StoreTrouble,
};
use super::{Classify, Fault, Health};

/// Why the store could not do what it was asked. Its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, did not answer in time, or failed on the way. A write may have happened.
    #[error("{}: {context}; {}", trouble.what(), trouble.advice())]
    Unavailable {
        /// What was being done.
        context: &'static str,
        /// What is wrong.
        trouble: StoreTrouble,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It cannot do it as long as the trouble lasts, whatever is asked; nothing was written.
    #[error("{}: {context}; {}", trouble.what(), trouble.advice())]
    Busy {
        /// What was being done.
        context: &'static str,
        /// What is wrong.
        trouble: StoreTrouble,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It does not accept what was asked, and never will: a bug, or at the start a database of another version or a
    /// mistake in the configuration.
    #[error("{}: {context}; {}", trouble.what(), trouble.advice())]
    Refused {
        /// What was being done.
        context: &'static str,
        /// What is wrong.
        trouble: StoreTrouble,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl StoreError {
    /// What is wrong.
    pub fn trouble(&self) -> StoreTrouble {
        match self {
            Self::Unavailable { trouble, .. }
            | Self::Busy { trouble, .. }
            | Self::Refused { trouble, .. } => *trouble,
        }
    }
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

    fn class(&self) -> &'static str {
        self.trouble().as_str()
    }
}

/// A turn that is to end as failed.
#[derive(Debug, Clone)]
pub struct Failing {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Its session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Stream sequence of its input: which of several messages with this workflow id is meant.
    pub input_sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub failure: FailureRecord,
}

/// A turn that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTurn {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Its session.
    pub session_id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Stream sequence of its input.
    pub input_sequence: u64,
    /// Since when it runs.
    pub started_at: Timestamp,
}

/// Which running turns to list.
#[derive(Debug, Clone)]
pub struct RunningQuery {
    /// Those that run since this instant or longer.
    pub started_by: Timestamp,
    /// Only those behind this one in the order of the answer.
    pub after: Option<(Timestamp, WorkflowId)>,
    /// At most so many.
    pub limit: usize,
}

/// A turn that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedTurn {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// With an answer.
    pub saved: bool,
    /// When, by the clock of the process that ended it.
    pub ended_at: Timestamp,
}

/// A finished interaction, to be stored as one row.
#[derive(Debug, Clone, PartialEq)]
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
    /// Data sources whose data the answer lacks.
    pub degraded: Vec<String>,
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
    /// The workflow is that of another message, and stands as it stood: publish nothing.
    Duplicate,
}

/// A turn that was asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// How it ended.
    pub ending: Ending,
    /// What the session's running turn began with, to be published (idempotently: as a rule, only if this ending
    /// started that turn it was not published before).
    pub next: Option<Opening>,
}

/// How far the log is known to be in the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// Every end up to this place of the log is on record.
    pub sequence: u64,
    /// Which run of the database's server says so: another one may lack what was committed last, if it is a replica or
    /// began with a backup.
    pub server: String,
}

/// The database.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Opens turns, all or none, in one transaction; the answers are in the order of the questions, and say how things
    /// stand at its end.
    ///
    /// The questions are taken in their order, except that neighbours that are content to wait are taken together: of
    /// those of one session the first in the order of the stream starts, wherever it stands in the batch. A session is
    /// busy for an input if a turn of another workflow is open in it. An input that is not of its session's owner, where
    /// it has one ([`SessionOwner`]), is recorded as failed and does nothing else; so is one that would take a place in
    /// its session and whose user has as many open turns as it may have. A turn that would start and has no room in its
    /// user's share is held ([`UserLimits`]; all inputs of a batch have the same). Where a session is busy, and only when
    /// it is admitted for the first time, an input that asks for
    /// - [`WhenBusy::Reject`] is recorded as failed;
    /// - [`WhenBusy::Interrupt`] ends the running turn as failed, if that one's input came before it. It takes its own
    ///   place: turns that wait before it run before it;
    /// - [`WhenBusy::Merge`] becomes part of the last turn that waits in the session and is recorded as failed, if that
    ///   turn came before it, is of the same user, asked for it as well, and their events are together no longer than
    ///   [`MERGE_LIMIT_BYTES`]. Else it waits.
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError>;
    /// Starts turns that are held, those first whose users have the fewest running turns, then in the order of the stream,
    /// as far as there is room. A turn whose session runs another, or has an earlier one waiting, stays. Looks at no more
    /// than [`HELD_USERS`] users. Asked again it starts further ones; those whose answer was lost run, and are begun as
    /// every turn is that was started by a process which then died.
    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError>;
    /// The user's preferences, and the latest `turns` saved turns of this user in this session in the order of
    /// their inputs, oldest first.
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError>;
    /// Stores the interaction and ends its turn as saved, in one transaction. A turn that was never admitted is
    /// stored all the same; one that failed, or whose interaction was stored before, is not stored again.
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError>;
    /// Ends a turn as failed. A turn that was never admitted is recorded as failed (an input that no worker could
    /// handle), so that it never runs. A turn of another message is left alone.
    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError>;
    /// Turns that run, ordered by the instant of their start and then by workflow id.
    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError>;
    /// What a turn began with, for as long as it runs.
    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError>;
    /// For each of these places (session and input sequence) the turn before it: the last one that has ended, of those
    /// whose inputs came earlier. Turns that were rejected, merged or interrupted do not count; their ends are published by
    /// the stage that admits what did that.
    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError>;
    /// How a workflow ended; `None` if it is not known.
    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError>;
    /// The smallest input sequence of all open turns.
    async fn oldest_open(&self) -> Result<Option<u64>, StoreError>;
    /// Forgets turns that ended before an instant, and their interactions: the oldest ones, at most `most`. Those that an
    /// open turn was made from stay until it ends. Says how many it forgot.
    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError>;
    /// Records the end of a turn as the log has it, whatever is on record: what the log says was published. Starts the next
    /// turn of its session, as every ending does.
    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError>;
    /// Turns, the newest first.
    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError>;
    /// How many turns are open, and since when.
    async fn open_turns(&self) -> Result<OpenTurns, StoreError>;
    /// How far the log is known to be in the database; at its beginning if that was never set.
    async fn mark(&self) -> Result<Mark, StoreError>;
    /// Moves that mark, unless it is not at `from` any more.
    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError>;
    /// Answers if the database does.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Answers if the database can be written to, as far as that can be found out without changing anything that anybody
    /// sees.
    async fn probe(&self) -> Result<(), StoreError> {
        self.ping().await
    }
    /// Completes when this store can never answer again, because a task of its own has ended; never, if it has none.
    async fn ended(&self) {
        std::future::pending::<()>().await;
    }
}

/// Most bytes of encoded events that one turn is merged from: what a stream keeps of an event without putting it
/// elsewhere.
pub const MERGE_LIMIT_BYTES: usize = 64 * 1024;
