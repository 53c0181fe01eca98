//! What is said on `{ns}.live.{workflow}` while an answer comes into being.
//!
//! Live frames are not stored and may be lost; the durable answer is in `response_generated`. A reader keeps text
//! apart by `(delivery, attempt)`: when either changes, what it has shown so far belongs to an attempt that was given
//! up, and the answer begins anew. `seq` has no gaps as sent, so a gap tells a reader what it missed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{FinishReason, WorkflowId};

/// What a frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LiveKind {
    /// An attempt begins: `model` and `provider` say with whom.
    Started,
    /// The next piece of the answer is in `text`.
    Text,
    /// The next piece of the model's reasoning is in `text`.
    Reasoning,
    /// The attempt broke off after text had gone out; whatever came so far is void. `reason` says why, in words,
    /// `model` and `provider` who is asked next, after `again_in_ms`.
    Restarted,
    /// A rate limit holds the next attempt back, at `model` and `provider`, for about `again_in_ms`.
    HeldBack,
    /// The answer is complete and on its way into the log; `finish_reason` says why it ended.
    Completed,
    /// No (further) attempt is made now; `reason` says why, in words. The end of the workflow follows in the log.
    Failed,
    /// A kind of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveFrame {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Which delivery to a worker this is of, from 1; a worker that dies is followed by the next one.
    pub delivery: u32,
    /// Position among the frames of this delivery, from 0.
    pub seq: u64,
    /// Attempt of this delivery, from 1.
    pub attempt: u32,
    /// What it tells.
    pub kind: LiveKind,
    /// Of `text` and `reasoning`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Of `started`: the model asked; of `restarted` and `held_back`: the one to be asked next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// With `model`: its provider's name in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Of `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Of `restarted` and `failed`, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of `restarted` and `held_back`: when the next attempt is made, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_in_ms: Option<u64>,
}
