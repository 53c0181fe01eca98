//! What differs from provider to provider: a form to fill in. `ARCHITECTURE.md` says how to add one.

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use throughline_actors::ports::model::ModelRequest;
use throughline_schemas::Usage;

use super::ModelOptions;
use super::error_body::ProviderError;
use super::forwarder::Forwarder;
use super::parsed_answer::{ParsedAnswer, Unusable};
use super::sse::TooLarge;

/// One provider's way of saying things. Knows no limits, no sockets and no keys.
pub(super) trait Dialect: Send + Sync {
    /// The header that carries the key, and what stands before the key in it.
    fn key_header(&self) -> (HeaderName, &'static str);

    /// Headers of every request.
    fn headers(&self) -> &'static [(HeaderName, HeaderValue)] {
        &[]
    }

    /// Where the request goes. What of it comes from outside is percent-encoded.
    fn url(&self, request: &ModelRequest) -> Url;

    /// Where the list of models is, which is free.
    fn models_url(&self) -> Url;

    /// The request's body.
    fn body(&self, request: &ModelRequest, options: ModelOptions) -> Value;

    /// Reads a whole answer without an error in it. Whether there is anything in it is not its business.
    fn read(&self, raw: &Value) -> Result<ParsedAnswer, Unusable>;

    /// The tokens that a whole answer, or what there is of one, reports; `None` if that makes no sense.
    fn usage(&self, raw: &Value) -> Option<Usage>;

    /// What puts a stream together, of which at most `max_bytes` are kept.
    fn assembly(&self, max_bytes: usize) -> Box<dyn Assembly>;

    /// Whether a document is an event of a stream, not a whole answer; `asked`: whether a stream was asked for.
    fn is_piece(&self, document: &Value, asked: bool) -> bool;
}

/// Puts the events of one stream together in the form that the provider gives a whole answer, so that both are read by
/// the same code.
pub(super) trait Assembly: Send {
    /// Takes the next event, whose data is JSON and no error. The forwarder gets what is in it of text and reasoning.
    fn json(&mut self, event: Value, forwarder: &mut Forwarder<'_>) -> Result<Progress, Fault>;

    /// What there is of the answer.
    fn raw(&mut self) -> &mut Value;

    /// Whether the provider has said why the answer ends: nothing more of it comes.
    fn is_finished(&self) -> bool;
}

/// What an event meant for the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more.
    Goes,
    /// It was the last one.
    Ended,
}

/// Why a stream cannot be read further.
#[derive(Debug)]
pub(super) enum Fault {
    /// The provider says that it failed.
    Said(ProviderError),
    /// It is not what the protocol promises.
    Malformed(String),
    /// It is larger than allowed.
    TooLarge,
}

impl From<TooLarge> for Fault {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}
