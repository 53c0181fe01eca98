//! Turns as they are listed, and counted.

use throughline_schemas::{FailureCode, SessionId, Timestamp, Usd, UserId, WorkflowId};

/// Where a turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TurnState {
    /// Behind another turn of its session, or held because its user has its share of running turns.
    Waiting,
    /// Its workflow runs.
    Running,
    /// It ended with an answer.
    Saved,
    /// It ended without one.
    Failed,
}

impl TurnState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Running, Self::Saved, Self::Failed];

    /// The name in databases, commands and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Saved => "saved",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether a turn that stands so is over.
    pub fn is_end(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Saved | Self::Failed => true,
        }
    }
}

/// Which turns to list, the newest first.
#[derive(Debug, Clone, Default)]
pub struct TurnsQuery {
    /// The turn of this workflow only. No other condition is looked at then.
    pub workflow: Option<WorkflowId>,
    /// Those that stand in one of these ways; all, if none is named.
    pub states: Vec<TurnState>,
    /// Those of this user.
    pub user: Option<UserId>,
    /// Those of this session.
    pub session: Option<SessionId>,
    /// Only those behind this one in the order of the answer: by the instant of their admission, then by workflow, both
    /// descending.
    pub after: Option<(Timestamp, WorkflowId)>,
    /// At most so many.
    pub limit: usize,
}

impl TurnsQuery {
    /// The turn of one workflow.
    pub fn of(workflow: WorkflowId) -> Self {
        Self { workflow: Some(workflow), limit: 1, ..Self::default() }
    }
}

/// A turn in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTurn {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Its session.
    pub session_id: SessionId,
    /// Its user, if known.
    pub user_id: Option<UserId>,
    /// Stream sequence of its input, if known.
    pub input_sequence: Option<u64>,
    /// How it stands.
    pub state: TurnState,
    /// The workflow of the turn that runs in its session, if it waits. If it waits and none runs, the first of those that
    /// wait there is held: its user has its share of running turns.
    pub waits_for: Option<WorkflowId>,
    /// Why it failed, if it failed and that is on record.
    pub code: Option<FailureCode>,
    /// The workflow that interrupted it, or that carries its text.
    pub superseded_by: Option<WorkflowId>,
    /// When it was admitted.
    pub created_at: Timestamp,
    /// Since when it stands so.
    pub updated_at: Timestamp,
    /// What its answer cost, if it has one and that is known.
    pub cost_usd: Option<Usd>,
}

/// The open turns of one state, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub turns: u64,
    /// When the oldest of them was admitted.
    pub oldest: Option<Timestamp>,
}

/// The open turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenTurns {
    /// Those that wait for others of their sessions, or for a place in their user's share.
    pub waiting: Tally,
    /// Those that run.
    pub running: Tally,
}
