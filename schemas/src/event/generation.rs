//! `response_generated`, and the record of every attempt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::input::Request;
use crate::{FinishReason, Millis, Timestamp, Usage, Usd};

/// Who speaks in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions of the operator.
    System,
    /// The user, or data fetched on the user's behalf.
    User,
    /// The model.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// The prompt as sent, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prompt {
    /// Id of the template.
    pub id: String,
    /// Lower-case hex SHA-256 of the template's sources.
    pub hash: String,
    /// Id of the configuration that produced it: lower-case hex SHA-256 of the effective settings.
    pub config: String,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in thousandths, so that the record is exact.
    pub temperature_milli: u32,
}

/// How certain it is that a failed attempt had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// Trying again cannot help.
    Permanent,
    /// It did not happen; trying again may help.
    Transient,
    /// It may have happened, and may have been billed.
    Unknown,
}

/// One call to a model, or one that an open breaker prevented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// Model asked for.
    pub model: String,
    /// When the call began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: Millis,
    /// Whether a request was sent at all.
    pub sent: bool,
    /// The HTTP status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The provider's id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How long the provider asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Tokens, if the provider reported them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Cost, if usage and price are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    /// Class of the error; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<ErrorClass>,
    /// The error, for a person; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
    /// Cost of all attempts whose cost is known; absent if the price is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
    /// The prompt as sent.
    pub prompt: Prompt,
    /// The provider's answer as it came.
    pub raw_response: Value,
}
