//! The record of every attempt.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Millis, Timestamp, Usage, Usd, event::ErrorDetail};

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

/// What an attempt failed of, for a machine. The set grows within a major version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptError {
    /// The provider refused the credentials.
    Credentials,
    /// The provider does not let the request in, for a reason that another key would not change: the place or the account is
    /// not served.
    Forbidden,
    /// The provider refused the request.
    BadRequest,
    /// The account has no credit.
    QuotaExhausted,
    /// The provider does not know the model.
    UnknownModel,
    /// The prompt does not fit the model's window; if nothing was sent, by our own count.
    ContextTooLong,
    /// The provider's filter withheld the answer.
    ContentFiltered,
    /// The provider asked to slow down.
    RateLimited,
    /// The provider failed.
    Server,
    /// No connection could be made.
    Unreachable,
    /// The connection broke before the answer was complete.
    CutShort,
    /// No connection within its limit.
    ConnectTimeout,
    /// No answer began within its limit.
    FirstTokenTimeout,
    /// The answer stalled.
    ReadTimeout,
    /// The whole call took too long.
    TotalTimeout,
    /// The answer is larger than allowed.
    TooLarge,
    /// The answer is not what the protocol promises.
    BadResponse,
    /// The limit on the answer was reached before any of its text.
    LimitUsedUp,
    /// Nothing was sent: the breaker of the provider is open.
    BreakerOpen,
    /// Nothing was sent: the provider had asked everybody to wait.
    Paced,
    /// Nothing was sent: the configured or announced rate limit leaves no room within the time that may be waited.
    OwnRateLimit,
    /// An error of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

impl AttemptError {
    /// The name in events and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Forbidden => "forbidden",
            Self::BadRequest => "bad_request",
            Self::QuotaExhausted => "quota_exhausted",
            Self::UnknownModel => "unknown_model",
            Self::ContextTooLong => "context_too_long",
            Self::ContentFiltered => "content_filtered",
            Self::RateLimited => "rate_limited",
            Self::Server => "server",
            Self::Unreachable => "unreachable",
            Self::CutShort => "cut_short",
            Self::ConnectTimeout => "connect_timeout",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::ReadTimeout => "read_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::TooLarge => "too_large",
            Self::BadResponse => "bad_response",
            Self::LimitUsedUp => "limit_used_up",
            Self::BreakerOpen => "breaker_open",
            Self::Paced => "paced",
            Self::OwnRateLimit => "own_rate_limit",
            Self::Unrecognised => "unrecognised",
        }
    }
}

/// Why a cost is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CostUnknown {
    /// The model's price is not configured.
    NoPrice,
    /// The provider did not report its tokens.
    NoUsage,
    /// The provider reported no token at all for an answer: it did not count.
    NothingCounted,
    /// The sum exceeds what a decimal can hold.
    TooLarge,
    /// A reason of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

/// What a call was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To answer the user; what an attempt without a purpose is for.
    Answer,
    /// To summarise earlier turns, so that the prompt fits.
    Summary,
    /// A purpose of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

/// One call to a model, or one that an open breaker or a limit prevented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// Model asked for, by the provider's name of it.
    pub model: String,
    /// The same model's name in the configuration, by which routes and commands speak of it; absent in events of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which delivery to a worker it was made in, from 1; absent if it was the first.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub delivery: u32,
    /// When the call began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: Millis,
    /// Whether a request was sent at all.
    pub sent: bool,
    /// What it was for; absent if it was to answer the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Purpose>,
    /// The HTTP status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// The provider's id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// How long rate limits, ours and the provider's announced ones, held the call back before it began, in
    /// milliseconds; absent if they did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
    /// Time to the first piece of a streamed answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// How long the provider asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Whether the provider itself said that a call that failed may be made again (`x-should-retry`); absent if it did
    /// not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub should_retry: Option<bool>,
    /// The wait that was decided on before this model may be asked again, in milliseconds; absent if it may not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// The random number that was drawn for the backoff: 0 stands for half of its longest wait, 4,294,967,295 for all of
    /// it. Absent if none was drawn; there may be one although no wait followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u32>,
    /// Tokens, if the provider reported them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Cost: what the provider states itself, else by usage and price, if both are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Usd>,
    /// What the provider itself says that the call cost, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stated_cost_usd: Option<Usd>,
    /// What it would cost by usage and price, where the provider states its cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priced_cost_usd: Option<Usd>,
    /// Why the cost is not known although there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_unknown: Option<CostUnknown>,
    /// Whether the provider may have charged for an attempt that failed; absent if it cannot have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_have_been_billed: bool,
    /// Class of the error; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_class: Option<ErrorClass>,
    /// The error, for a machine; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<AttemptError>,
    /// The error, for a person; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The parts of the error; absent on success, and in events of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_first(delivery: &u32) -> bool {
    *delivery == 1
}
