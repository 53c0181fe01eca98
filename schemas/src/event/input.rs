//! `user_input_received` and `input_validated`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Redo;
use crate::{Metadata, SessionId, Timestamp, UserId, WorkflowId};

/// What to do with a message whose session is busy: an earlier message of it has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenBusy {
    /// It waits for its turn.
    #[default]
    Enqueue,
    /// It fails at once, as `session_busy`.
    Reject,
    /// The running turn fails as `interrupted`, its model call is stopped, and the session goes on.
    Interrupt,
    /// It waits; messages of the same user that want to be merged and wait next to each other become one turn, that of
    /// the first of them. The others end as `merged`.
    Merge,
}

impl WhenBusy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Enqueue, Self::Reject, Self::Interrupt, Self::Merge];

    /// The name in events, in the configuration and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Reject => "reject",
            Self::Interrupt => "interrupt",
            Self::Merge => "merge",
        }
    }
}

impl fmt::Display for WhenBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no way to treat a busy session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not enqueue, reject, interrupt or merge")]
pub struct UnknownWhenBusy(pub String);

impl FromStr for WhenBusy {
    type Err = UnknownWhenBusy;

    fn from_str(name: &str) -> Result<Self, UnknownWhenBusy> {
        let found = Self::ALL.into_iter().find(|when_busy| when_busy.as_str() == name);
        found.ok_or_else(|| UnknownWhenBusy(name.to_owned()))
    }
}

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
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schemars(with = "Map<String, Value>")]
    pub metadata: Metadata,
    /// What to do if the session is busy; else as `sessions.when_busy` of the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_busy: Option<WhenBusy>,
    /// Takes up an earlier workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redo: Option<Redo>,
}

/// A request after validation: what every later stage works from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// The normalised text: trimmed, line ends as `\n`.
    pub user_input: String,
    /// The publisher's metadata, unchanged.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schemars(with = "Map<String, Value>")]
    pub metadata: Metadata,
    /// Sequence of the `user_input_received` message in the event stream: its place in the session's order.
    pub input_sequence: u64,
    /// When the event stream stored the input.
    pub received_at: Timestamp,
    /// Workflows whose texts follow this one's own in `user_input`, in their order: they came while it waited, and
    /// ended as `merged`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<WorkflowId>,
    /// The earlier workflow that this one takes up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redo: Option<Redo>,
}

/// `input_validated`: accepted, normalised, admitted into its session's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InputValidated {
    /// The validated request.
    pub request: Request,
}
