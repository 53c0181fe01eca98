//! What a re-run came to, workflow by workflow.

mod diff;
mod page;
#[cfg(test)]
mod testing;
mod totals;

use serde::Serialize;
use throughline_schemas::{FailureCode, FinishReason, SessionId, Timestamp, Usage, Usd, WorkflowId};

pub use self::{
    diff::{Diff, Part, Piece, diff},
    page::{PageError, page},
    totals::{SideTotals, Totals, words},
};

/// A re-run and what it was compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What was changed, in words.
    pub change: Vec<String>,
    /// What was selected, in words.
    pub selection: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it was allowed to cost.
    pub budget_usd: Option<Usd>,
    /// Why not all were run.
    pub stopped: Option<String>,
    /// Each workflow.
    pub rows: Vec<Row>,
}

/// One workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its id.
    pub workflow: WorkflowId,
    /// Its session.
    pub session: SessionId,
    /// What the user said.
    pub user_input: String,
    /// As it was.
    pub before: Side,
    /// As it came out now.
    pub after: Side,
}

/// How a workflow ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Side {
    /// With an answer.
    Answered(Answer),
    /// With a failure.
    Failed {
        /// Its code.
        code: FailureCode,
        /// For a person.
        message: String,
        /// Calls made; none if it failed before that.
        attempts: u32,
        /// Cost of the calls, if known.
        cost_usd: Option<Usd>,
    },
    /// It was not run.
    NotRun {
        /// Why.
        reason: String,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// What the user gets to read.
    pub text: String,
    /// The model that answered.
    pub model: String,
    /// Name of its provider in the configuration.
    pub provider: String,
    /// Why it stopped.
    pub finish_reason: FinishReason,
    /// Tokens of the answering call.
    pub usage: Usage,
    /// Cost of all attempts, if known.
    pub cost_usd: Option<Usd>,
    /// Whether there may be more cost than that.
    pub cost_is_partial: bool,
    /// Calls made.
    pub attempts: u32,
    /// From the first request to the answer, in milliseconds.
    pub latency_ms: u64,
}
