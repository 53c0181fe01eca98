//! `interaction_saved`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::generation::Response;
use crate::{Timestamp, Usage, Usd};

/// `interaction_saved`: stored; the workflow is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InteractionSaved {
    /// Id of the row in `interactions`.
    pub interaction_id: String,
    /// The answer.
    pub response: Response,
    /// Tokens of the answering call.
    pub usage: Usage,
    /// Cost of the workflow; absent if a price is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    /// Names of the data sources whose data is missing, all of it or some, because they failed:
    /// the answer was given without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
    /// When the event stream stored the input.
    pub received_at: Timestamp,
    /// When the row was written.
    pub saved_at: Timestamp,
}
