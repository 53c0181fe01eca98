//! What is said on `{ns}.live.{workflow}` while an answer comes into being.
//!
//! Live frames are not stored and may be lost; the durable answer is in `response_generated`. A reader keeps text
//! apart by `(delivery, attempt)`: when either changes, what it has shown so far belongs to an attempt that was given
//! up, and the answer begins anew. `seq` has no gaps as sent, so a gap tells a reader what it missed. Frames that are not
//! about a call to a model (`stage`, and `waiting` of other stages) have delivery, attempt and seq 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    FinishReason, StageName, WorkflowId,
    event::generation::{AttemptError, ErrorClass},
};

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
    /// A rate limit, or what the provider asked for (`why`), holds the next attempt back, at `model` and `provider`,
    /// for about `again_in_ms`.
    HeldBack,
    /// A stage begins its work: `stage`, one of `context`, `external` and `generation`.
    Stage,
    /// An attempt failed before any text had gone out, or an open breaker prevented it. `reason` says why, in words, and
    /// `error_code`, `error_class` and `http_status` for a machine; `model` and `provider` are who is asked next, after
    /// `again_in_ms`.
    AttemptFailed,
    /// From here on another model is asked: `model` and `provider`.
    FellBack,
    /// Nothing happens for about `again_in_ms`, because of `why`; `reason` says more, in words. Of a call to a model
    /// `model` and `provider` say who is waited for, of a data source `source`. For its session's turn, or for
    /// a place in its user's share, it is not known how long.
    Waiting,
    /// The answer is complete and on its way into the log; `finish_reason` says why it ended.
    Completed,
    /// No (further) attempt is made now; `reason` says why, in words. The end of the workflow follows in the log.
    Failed,
    /// A kind of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// A circuit breaker is open, because calls kept failing.
    BreakerOpen,
    /// The other side asked to wait (`Retry-After` and its like).
    AskedToWait,
    /// A rate limit of the configuration, or one that the provider announces.
    RateLimit,
    /// The pause between two attempts.
    Backoff,
    /// An earlier message of the session has not ended.
    Session,
    /// Its user has its share of the workflows that run at once.
    UserShare,
    /// A reason of a later version; never written.
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
    /// Of `started`: the model asked; otherwise the one to be asked next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// With `model`: its provider's name in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Of `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Of `stage` and `waiting`: which one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageName>,
    /// Of `waiting`: the data source that is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of `waiting` and `held_back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<WaitReason>,
    /// Of `attempt_failed` and `waiting`: what the attempt before failed of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<AttemptError>,
    /// Of `attempt_failed`: whether another attempt could help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<ErrorClass>,
    /// Of `attempt_failed` and `waiting`: the provider's HTTP status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Of `restarted`, `attempt_failed`, `waiting` and `failed`, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the next attempt is made, in milliseconds from now; of `failed`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again_in_ms: Option<u64>,
}

impl LiveFrame {
    /// A frame that tells nothing yet and is not about a call to a model.
    pub fn new(workflow_id: WorkflowId, kind: LiveKind) -> Self {
        Self {
            workflow_id,
            delivery: 0,
            seq: 0,
            attempt: 0,
            kind,
            text: None,
            model: None,
            provider: None,
            finish_reason: None,
            stage: None,
            source: None,
            why: None,
            error_code: None,
            error_class: None,
            http_status: None,
            reason: None,
            again_in_ms: None,
        }
    }
}
