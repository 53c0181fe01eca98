//! What a model call consumed and why it ended, in one vocabulary for all providers.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Tokens of one or several model calls.
///
/// `input_tokens` **includes** `cached_input_tokens` and `cache_write_input_tokens`, and `output_tokens` includes `reasoning_tokens`,
/// whatever the provider's own way of counting is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
    /// How many of the input tokens the provider served from its cache.
    #[serde(default)]
    pub cached_input_tokens: u64,
    /// How many of the input tokens the provider put into its cache, where it charges for that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_input_tokens: u64,
    /// How many of the output tokens were reasoning that the user does not see.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It was finished.
    Stop,
    /// It reached the token limit; the answer is cut.
    Length,
    /// It wants tools to be called.
    ToolCalls,
    /// The provider's filter withheld the answer or part of it.
    ContentFilter,
    /// Anything a provider says that is none of the above.
    Other,
}

impl FinishReason {
    /// The name in events and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finish_reasons_are_written_as_in_the_event() {
        use FinishReason::{ContentFilter, Length, Other, Stop, ToolCalls};
        for reason in [Stop, Length, ToolCalls, ContentFilter, Other] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
