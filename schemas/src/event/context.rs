//! `context_retrieved`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::input::Request;
use crate::{Timestamp, WorkflowId};

/// One earlier exchange of the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// The workflow that produced it.
    pub workflow_id: WorkflowId,
    /// What the user said.
    pub user: String,
    /// What was answered.
    pub assistant: String,
    /// When it was stored.
    pub at: Timestamp,
}

/// What is known about the user and the conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Context {
    /// The user's preferences by name.
    #[serde(default)]
    pub preferences: Map<String, Value>,
    /// The latest turns of this user in this session, oldest first.
    #[serde(default)]
    pub recent_turns: Vec<Turn>,
}

/// `context_retrieved`: preferences and recent turns from the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextRetrieved {
    /// The validated request.
    pub request: Request,
    /// What the database knows.
    pub context: Context,
}
