//! How a workflow ended, as it is on record.

use throughline_schemas::{FailureCode, SessionId, Timestamp, UserId, WorkflowFailed, WorkflowId};

use super::{Failing, Interaction};

/// What is on record about the end of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub enum KnownEnd {
    /// It has none yet: its turn waits or runs.
    Open,
    /// It has an answer. Which messages were merged into its request, and what it took up, is not on record.
    Saved(Box<Interaction>),
    /// It failed.
    Failed(Box<FailedTurn>),
    /// It had an answer, and that has been deleted.
    Forgotten {
        /// Whose it was.
        user_id: Option<UserId>,
        /// In which session.
        session_id: SessionId,
    },
}

/// A turn that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedTurn {
    /// Its user; unknown of turns that an earlier version failed before they were admitted.
    pub user_id: Option<UserId>,
    /// Its session.
    pub session_id: SessionId,
    /// What kind of failure it was; unknown of turns of an earlier version.
    pub code: Option<FailureCode>,
    /// The failure without its attempts (see [`FailureRecord`](super::FailureRecord)); of a turn that its busy session
    /// had no place for only the code is on record.
    pub record: Option<WorkflowFailed>,
    /// The workflow that interrupted it, or that carries its text.
    pub superseded_by: Option<WorkflowId>,
    /// When it failed.
    pub ended_at: Timestamp,
}

/// A turn that ended, according to the log.
#[derive(Debug, Clone)]
pub enum RestoredTurn {
    /// With this answer.
    Saved(Box<Interaction>),
    /// Without one.
    Failed(Failing),
}
