//! `user_input_received` and `input_validated`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{SessionId, Timestamp, UserId, WorkflowId};

/// `user_input_received`: a user said something. Published bare, or as the data of a `CloudEvent`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UserInputReceived {
    /// Who is asking.
    pub user_id: UserId,
    /// The conversation; its workflows run one at a time, in order.
    pub session_id: SessionId,
    /// What the user said: not blank, at most `limits.max_input_bytes`.
    #[schemars(extend("pattern" = r"\S"))]
    pub user_input: String,
    /// Chosen by the publisher to make publishing idempotent; else the `CloudEvent`'s `id`, else the `Nats-Msg-Id`
    /// header, else a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    /// Passed through to later events and the stored interaction; never interpreted. At most
    /// `limits.max_metadata_bytes` of JSON.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A request after validation: what every later stage works from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// The normalised text: trimmed, line ends as `\n`.
    pub user_input: String,
    /// The publisher's metadata, unchanged.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Sequence of the `user_input_received` message in the event stream: its place in the session's order.
    pub input_sequence: u64,
    /// When the event stream stored the input.
    pub received_at: Timestamp,
}

/// `input_validated`: accepted, normalised, admitted into its session's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InputValidated {
    /// The validated request.
    pub request: Request,
}
