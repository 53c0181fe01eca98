//! A model behind a provider: one prompt, one answer, whole or piece by piece.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
pub use throughline_schemas::event::generation::ToolCall;
use throughline_schemas::{
    FinishReason, TraceParent, Usage, Usd,
    event::generation::{AttemptError, Message},
};

use super::{Classify, Fault, Health};

/// One request, in no provider's dialect.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// The provider's name of the model.
    pub model: String,
    /// The prompt.
    pub messages: Arc<Vec<Message>>,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in thousandths; `None`: not sent, for models that refuse the parameter.
    pub temperature_milli: Option<u32>,
    /// Nucleus sampling (`top_p`) in thousandths; `None`: not sent.
    pub top_p_milli: Option<u32>,
    /// Texts at which the answer ends, without them.
    pub stop: Vec<String>,
    /// The form that the answer must have.
    pub format: AnswerFormat,
    /// Whether to ask for the answer piece by piece.
    pub stream: bool,
    /// Trace context to send along.
    pub traceparent: TraceParent,
    /// Whether an answer may be nothing but calls of tools. No request offers any; who passes answers on may want them all
    /// the same, a user cannot read them.
    pub takes_tool_calls: bool,
}

/// The form of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum AnswerFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON document; any, or one of this JSON Schema where the provider supports it.
    Json(Option<Value>),
}

/// A piece of an answer under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delta<'a> {
    /// Of the text that the user gets to read.
    Text(&'a str),
    /// Of the model's reasoning.
    Reasoning(&'a str),
    /// The text so far was the model's reasoning, which only now is clear: it is void as text.
    Void,
}

/// Receives the pieces of an answer as they come. Never waits: a sink that cannot keep up drops what it must.
pub trait DeltaSink: Send + Sync {
    /// The next piece; never empty.
    fn delta(&self, delta: Delta<'_>);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSink;

impl DeltaSink for NoSink {
    fn delta(&self, _: Delta<'_>) {}
}

/// What a provider's headers say of one of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// How much is allowed in each of the provider's periods.
    pub limit: Option<u64>,
    /// How much is left of it now.
    pub remaining: Option<u64>,
    /// When it is full again.
    pub resets_in: Option<Duration>,
}

/// What a provider's headers say of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowances {
    /// Requests.
    pub requests: Allowance,
    /// Tokens, input and output together.
    pub tokens: Allowance,
    /// Input tokens, where the provider counts them apart.
    pub input_tokens: Allowance,
    /// Output tokens, where the provider counts them apart.
    pub output_tokens: Allowance,
}

impl Allowances {
    /// Each limit.
    pub fn each_mut(&mut self) -> [&mut Allowance; 4] {
        let Self { requests, tokens, input_tokens, output_tokens } = self;
        [requests, tokens, input_tokens, output_tokens]
    }
}

/// What the provider said about a call besides its result.
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
    /// Time from the start of the call to the first piece of text or reasoning; only of streams.
    pub first_token: Option<Duration>,
    /// What the provider's headers say of its limits, if they do.
    pub allowances: Option<Box<Allowances>>,
    /// What the provider itself says that the call cost.
    pub stated_cost: Option<Usd>,
    /// Usage was reported, and it counts no token at all, although there is an answer: they were not counted.
    pub counted_nothing: bool,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelAnswer {
    /// What the user gets to read.
    pub text: String,
    /// What the model thought before, where the provider passes it on.
    pub reasoning: Option<String>,
    /// Tools that it wants to be called.
    pub tool_calls: Vec<ToolCall>,
    /// The model, as the provider named it.
    pub model: String,
    /// Why it stopped. A refusal is [`FinishReason::ContentFilter`], its wording the text.
    pub finish_reason: FinishReason,
    /// The same in the provider's own word, if it gave one.
    pub finish_reason_raw: Option<String>,
    /// Tokens, if reported in a form that makes sense.
    pub usage: Option<Usage>,
    /// The answer as it came, without the provider's key where it was echoed. A streamed one is put together in the
    /// form that the provider gives a whole one.
    pub raw: Value,
    /// Besides.
    pub facts: CallFacts,
}

impl ModelAnswer {
    /// An answer of a program's own, of which nothing but the text is known: it costs nothing that could be counted.
    pub fn of_text(model: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            raw: Value::from(text.as_str()),
            text,
            reasoning: None,
            tool_calls: Vec::new(),
            model: model.into(),
            finish_reason: FinishReason::Stop,
            finish_reason_raw: None,
            usage: None,
            facts: CallFacts::default(),
        }
    }
}

/// Which limit a call ran into. Shown as what did not come in time, with the limit's name in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Phase {
    /// Connecting; nothing was sent.
    #[error("no connection within connect_timeout_ms")]
    Connect,
    /// Waiting for the answer to begin (its first piece, of a stream; the first piece of its body otherwise); connecting
    /// counts.
    #[error("no beginning of an answer within first_token_timeout_ms")]
    FirstToken,
    /// Between two pieces of the answer.
    #[error("nothing more of the answer within read_timeout_ms")]
    Read,
    /// The whole call.
    #[error("no complete answer within total_timeout_ms")]
    Total,
}

/// What went wrong with a call. Texts are the provider's own words, on one line, cut to a few hundred characters,
/// without its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// 401, or a 403 that speaks of the key. Its words may be empty.
    #[error("the provider refused the credentials; check the api_key of the provider{}", after_colon(.0))]
    Credentials(String),
    /// Another 403: the provider, or something before it, does not serve this place or account. Another key would not
    /// help, another provider may.
    #[error("the provider does not let the request in, for a reason that another key would not change: {0}")]
    Forbidden(String),
    /// Another 4xx, or a redirect: the request or the configuration is at fault.
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
    /// The provider's filter refused the prompt, or withheld the answer completely.
    #[error("the provider's content filter withheld the answer: {0}")]
    ContentFiltered(String),
    /// 429. Its words may be empty.
    #[error("the provider asked to slow down{}", after_colon(.0))]
    RateLimited(String),
    /// 408, 409, 424, 425, 498, 499, 5xx (529 included), or an answer that says that the provider failed.
    #[error("the provider failed: {0}")]
    Server(String),
    /// No connection could be made; nothing was sent.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke, or carried something that is not HTTP, after the request was sent.
    #[error("the connection broke before the answer was complete: {0}")]
    CutShort(String),
    /// A time limit passed.
    #[error("the provider took too long: {0}")]
    TimedOut(Phase),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {0} bytes; raise generation.max_response_bytes if that is legitimate")]
    TooLarge(usize),
    /// A success status with an answer that is not what the protocol promises, or is a stream that ended without saying
    /// that it was complete.
    #[error("the provider's answer is not usable: {0}")]
    BadResponse(String),
    /// An answer as the protocol has it, with nothing in it, or not of the form that this request asked for.
    #[error("the provider's answer is no answer to this request: {0}")]
    Unfit(String),
    /// The limit on the answer was reached before any of its text: asked again, the same would come of it.
    #[error(
        "the token limit was used up before any text came, by reasoning or by nothing that can be read; raise max_tokens, or \
         ask a model that reasons less: {0}"
    )]
    LimitUsedUp(String),
}

/// Words that an error may lack.
fn after_colon(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

impl ModelError {
    /// The error, for a machine.
    pub fn code(&self) -> AttemptError {
        match self {
            Self::Credentials(_) => AttemptError::Credentials,
            Self::Forbidden(_) => AttemptError::Forbidden,
            Self::BadRequest(_) => AttemptError::BadRequest,
            Self::QuotaExhausted(_) => AttemptError::QuotaExhausted,
            Self::UnknownModel(_) => AttemptError::UnknownModel,
            Self::ContextTooLong(_) => AttemptError::ContextTooLong,
            Self::ContentFiltered(_) => AttemptError::ContentFiltered,
            Self::RateLimited(_) => AttemptError::RateLimited,
            Self::Server(_) => AttemptError::Server,
            Self::Unreachable(_) => AttemptError::Unreachable,
            Self::CutShort(_) => AttemptError::CutShort,
            Self::TimedOut(Phase::Connect) => AttemptError::ConnectTimeout,
            Self::TimedOut(Phase::FirstToken) => AttemptError::FirstTokenTimeout,
            Self::TimedOut(Phase::Read) => AttemptError::ReadTimeout,
            Self::TimedOut(Phase::Total) => AttemptError::TotalTimeout,
            Self::TooLarge(_) => AttemptError::TooLarge,
            Self::BadResponse(_) | Self::Unfit(_) => AttemptError::BadResponse,
            Self::LimitUsedUp(_) => AttemptError::LimitUsedUp,
        }
    }
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ModelFailure {
    /// What went wrong.
    pub error: ModelError,
    /// Tokens, if they were reported before it went wrong.
    pub usage: Option<Usage>,
    /// Besides.
    pub facts: CallFacts,
}

impl ModelFailure {
    /// Whether the provider may have charged for the call: its outcome is not known, or it had begun to answer.
    pub fn may_have_been_billed(&self) -> bool {
        matches!(self.fault(), Fault::Unknown) || self.usage.is_some() || self.facts.first_token.is_some()
    }
}

impl Classify for ModelFailure {
    fn fault(&self) -> Fault {
        match &self.error {
            ModelError::Credentials(_)
            | ModelError::Forbidden(_)
            | ModelError::QuotaExhausted(_)
            | ModelError::UnknownModel(_)
            | ModelError::ContextTooLong(_)
            | ModelError::ContentFiltered(_)
            | ModelError::LimitUsedUp(_) => Fault::Permanent,
            // The provider's word overrides its status, never what its body said in so many words.
            ModelError::BadRequest(_) if self.facts.should_retry != Some(true) => Fault::Permanent,
            ModelError::RateLimited(_) | ModelError::Server(_) if self.facts.should_retry == Some(false) => {
                Fault::Permanent
            }
            ModelError::BadRequest(_) | ModelError::RateLimited(_) | ModelError::Server(_) => {
                Fault::Transient { wait_at_least: self.facts.retry_after }
            }
            ModelError::Unreachable(_) | ModelError::TimedOut(Phase::Connect) => {
                Fault::Transient { wait_at_least: None }
            }
            ModelError::CutShort(_)
            | ModelError::TimedOut(Phase::FirstToken | Phase::Read | Phase::Total)
            | ModelError::TooLarge(_)
            | ModelError::BadResponse(_)
            | ModelError::Unfit(_) => Fault::Unknown,
        }
    }

    fn health(&self) -> Health {
        match &self.error {
            // What depends on this one request says nothing to the requests of others.
            ModelError::BadRequest(_)
            | ModelError::UnknownModel(_)
            | ModelError::ContextTooLong(_)
            | ModelError::ContentFiltered(_)
            | ModelError::TooLarge(_)
            | ModelError::Unfit(_)
            | ModelError::LimitUsedUp(_) => Health::Answered,
            ModelError::RateLimited(_) => Health::Paced,
            ModelError::Credentials(_)
            | ModelError::Forbidden(_)
            | ModelError::QuotaExhausted(_)
            | ModelError::Server(_)
            | ModelError::Unreachable(_)
            | ModelError::CutShort(_)
            | ModelError::TimedOut(_)
            | ModelError::BadResponse(_) => Health::Failed,
        }
    }

    fn class(&self) -> &'static str {
        self.error.code().as_str()
    }
}

/// All configured providers.
#[async_trait]
pub trait Models: Send + Sync + 'static {
    /// Makes one call and never a second one: redirects are not followed, nothing is tried again. Only where the provider
    /// refuses a key for what it is or has used up, the call is made with the next key, if there is one. Of a stream,
    /// `sink` gets every piece in order, and together they are the answer's text, but for what turns out to be around it
    /// (the code fence of a JSON document, [`Delta::Void`]); of a whole answer it gets nothing.
    /// Dropping the future abandons the call and closes its connection; the provider may have charged.
    async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure>;
}
