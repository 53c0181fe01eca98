//! The parts of an error.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The parts of the error of one call, of which its text for a person was made, whose wording may change: what a replay
/// needs besides the code, so that it never has to read the text. Which parts there are depends on the code; a code that
/// says everything has none.
// Options instead of an enum with a tag: a reader drops a member that it does not know, but not a variant, and the
// numbers in a tagged enum cannot be read where `serde_json` is built with `arbitrary_precision`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// What the other side said, or what happened to the connection: on one line, cut to a few hundred characters,
    /// without the keys that are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of `bad_response`: the answer is as the protocol has it, but there is nothing in it, or it does not have the
    /// form that the request asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub well_formed: bool,
    /// The limit on the size of the answer, which it exceeded, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The limit on time, which was exceeded, in milliseconds: of a call to a source, its timeout; of a model, how long
    /// rate limits may hold a request back in all. Which limit on time a call to a model exceeded is in its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
    /// The limit on the size of the request, which it exceeded, in tokens: the model's window, or what the rate limit
    /// allows in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_tokens: Option<u64>,
    /// What the request needs of that limit, in tokens; without `answer_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_tokens: Option<u64>,
    /// What is kept free in the model's window for the answer, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<u64>,
    /// How long the call was still refused when it was to be made, in milliseconds: by an open breaker, by a wait that
    /// the other side had asked for, or by a rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The failure that opened the breaker, on one line, without secrets; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker_cause: Option<String>,
}
