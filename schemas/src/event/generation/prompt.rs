//! The prompt as sent, and how it came to be so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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

/// The form that an answer must have, where it is not any text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// A JSON document.
    Json {
        /// JSON Schema that it must keep to; absent: any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schema: Option<Value>,
    },
}

/// How the prompt was made to fit the model's window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    /// Tokens of the prompt as sent, by our own count; absent where there was no need to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Whether that count is an estimate, because the model's tokenizer is not public.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// The model's window, prompt and answer together, in tokens; absent if it is not configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u32>,
    /// How many earlier turns were left out completely, the oldest first.
    #[serde(default)]
    pub dropped_turns: u32,
    /// How many earlier turns stand in the prompt as a summary only.
    #[serde(default)]
    pub summarised_turns: u32,
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
    /// Name of the elements in which the data stand, new for each prompt; absent where the template writes it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in thousandths, so that the record is exact; absent if it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_milli: Option<u32>,
    /// Nucleus sampling (`top_p`) in thousandths; absent if it was not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p_milli: Option<u32>,
    /// Texts at which the answer ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// The form that the answer must have; absent if it is any text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ResponseFormat>,
    /// Whether the answer was asked for piece by piece.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// How it was made to fit; absent if nothing was counted and nothing left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}
