//! A model behind a provider: one prompt, one answer.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use throughline_schemas::{FinishReason, TraceParent, Usage, event::generation::Message};

use super::{Classify, Fault, Health};

/// One request, in no provider's dialect.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// The provider's name of the model.
    pub model: String,
    /// The prompt.
    pub messages: Vec<Message>,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in thousandths.
    pub temperature_milli: u32,
    /// Trace context to send along.
    pub traceparent: TraceParent,
}

/// What the provider told about a call besides its result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFacts {
    /// HTTP status, if an answer began.
    pub http_status: Option<u16>,
    /// The provider's id of the request.
    pub request_id: Option<String>,
    /// How long the provider asked to wait, uncapped.
    pub retry_after: Option<Duration>,
    /// The provider's own word on trying again (`x-should-retry`), which overrides what its status suggests.
    pub should_retry: Option<bool>,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelAnswer {
    /// What the user gets to read.
    pub text: String,
    /// The model, as the provider named it.
    pub model: String,
    /// Why it stopped. A refusal is [`FinishReason::ContentFilter`], its wording the text.
    pub finish_reason: FinishReason,
    /// Tokens, if reported in a form that makes sense.
    pub usage: Option<Usage>,
    /// The answer as it came, without the provider's key where it was echoed.
    pub raw: Value,
    /// Besides.
    pub facts: CallFacts,
}

/// Which limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connecting; nothing was sent.
    Connect,
    /// Waiting for the answer to begin; connecting counts.
    FirstByte,
    /// Between two pieces of the answer.
    Read,
    /// The whole call.
    Total,
}

/// What went wrong with a call. Texts are the provider's own words, on one line, cut to a few hundred characters,
/// without its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// 401 or 403.
    #[error("the provider refused the credentials; check the api_key of the provider")]
    Credentials,
    /// Another 4xx, a redirect, or an answer that the provider's filter withheld completely: the request or the
    /// configuration is at fault.
    #[error("the provider refused the request: {0}")]
    BadRequest(String),
    /// The account has no credit (402, or a 429 that says so); waiting does not help.
    #[error("the provider's quota is used up: {0}")]
    QuotaExhausted(String),
    /// The provider does not know the model (404, or a body that says so), or the provider itself is not
    /// configured.
    #[error("the provider does not know the model: {0}")]
    UnknownModel(String),
    /// The prompt exceeds the model's window.
    #[error("the prompt is too long for the model: {0}")]
    ContextTooLong(String),
    /// 429.
    #[error("the provider asked to slow down")]
    RateLimited,
    /// 408, 409, 425, 5xx (529 included).
    #[error("the provider failed: {0}")]
    Server(String),
    /// No connection could be made; nothing was sent.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke, or carried something that is not HTTP, after the request was sent.
    #[error("the connection broke before the answer was complete: {0}")]
    CutShort(String),
    /// A time limit passed.
    #[error("no answer within the {0:?} limit")]
    TimedOut(Phase),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// A success status with an answer that is not what the protocol promises, or is empty.
    #[error("the provider's answer is not usable: {0}")]
    BadResponse(String),
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ModelFailure {
    /// What went wrong.
    pub error: ModelError,
    /// Besides.
    pub facts: CallFacts,
}

impl Classify for ModelFailure {
    fn fault(&self) -> Fault {
        match &self.error {
            ModelError::Credentials
            | ModelError::QuotaExhausted(_)
            | ModelError::UnknownModel(_)
            | ModelError::ContextTooLong(_) => Fault::Permanent,
            // The provider's word overrides its status, never what its body said in so many words.
            ModelError::BadRequest(_) if self.facts.should_retry != Some(true) => Fault::Permanent,
            ModelError::RateLimited | ModelError::Server(_) if self.facts.should_retry == Some(false) => {
                Fault::Permanent
            }
            ModelError::BadRequest(_) | ModelError::RateLimited | ModelError::Server(_) => {
                Fault::Transient { wait_at_least: self.facts.retry_after }
            }
            ModelError::Unreachable(_) | ModelError::TimedOut(Phase::Connect) => {
                Fault::Transient { wait_at_least: None }
            }
            ModelError::CutShort(_)
            | ModelError::TimedOut(Phase::FirstByte | Phase::Read | Phase::Total)
            | ModelError::TooLarge(_)
            | ModelError::BadResponse(_) => Fault::Unknown,
        }
    }

    fn health(&self) -> Health {
        match &self.error {
            ModelError::BadRequest(_) | ModelError::UnknownModel(_) | ModelError::ContextTooLong(_) => {
                Health::Answered
            }
            ModelError::RateLimited => Health::Paced,
            ModelError::Credentials
            | ModelError::QuotaExhausted(_)
            | ModelError::Server(_)
            | ModelError::Unreachable(_)
            | ModelError::CutShort(_)
            | ModelError::TimedOut(_)
            | ModelError::TooLarge(_)
            | ModelError::BadResponse(_) => Health::Failed,
        }
    }
}

/// All configured providers.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Makes one call and never a second one: redirects are not followed, nothing is tried again. Dropping the
    /// future abandons the call and closes its connection; the provider may have charged.
    async fn generate(&self, request: &ModelRequest) -> Result<ModelAnswer, ModelFailure>;
}
