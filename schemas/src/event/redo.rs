//! Taking up an earlier workflow.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{StageName, WorkflowId};

/// Which earlier workflow of the same user and session a workflow takes up, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redo {
    /// The earlier workflow.
    pub of: WorkflowId,
    /// The first stage that does its work anew. Those between the input stage and this one hand on what the earlier
    /// workflow has on record; what is not on record any more is made anew.
    pub from: StageName,
}
