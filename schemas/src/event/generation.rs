//! `response_generated`: the answer, the prompt, the route, and the record of every attempt.

mod attempt;
mod prompt;
mod route;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use attempt::{Attempt, AttemptError, CostUnknown, ErrorClass, Purpose};
pub use prompt::{Message, Prompt, ResponseFormat, Role, Window};
pub use route::{ChosenBy, Complexity, Route};

use super::input::Request;
use crate::{FinishReason, Usage, Usd};

/// A tool that the model wants to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// The provider's id of the call; empty where it gives none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments as the model wrote them: JSON, if it kept to it.
    pub arguments: String,
}

/// The model's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Response {
    /// What the user gets to read.
    pub text: String,
    /// The model that answered, as the provider named it.
    pub model: String,
    /// Name of the provider in the configuration.
    pub provider: String,
    /// Why it stopped.
    pub finish_reason: FinishReason,
    /// The same in the provider's own word, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason_raw: Option<String>,
    /// What the model thought before, where the provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Tools that it wants to be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// `response_generated`: the answer, and everything needed to re-enact the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseGenerated {
    /// The validated request.
    pub request: Request,
    /// The answer.
    pub response: Response,
    /// Tokens of the answering call.
    pub usage: Usage,
    /// Cost of all attempts whose cost is known; absent if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    /// Whether there may be more cost than `cost_usd` says: an attempt was or may have been charged for, and nobody
    /// knows how much. Each such attempt says why, in `cost_unknown`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cost_is_partial: bool,
    /// Names of the data sources whose data is missing, all of it or some, because they failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
    /// How many earlier deliveries to a worker there were whose attempts are not in `attempts`: their worker died, or
    /// its note of them was lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earlier_deliveries: u32,
    /// Which models might have been asked, and why these; absent in events of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The prompt as sent.
    pub prompt: Prompt,
    /// The provider's answer as it came.
    pub raw_response: Value,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
