//! One call to a provider, in whichever dialect: limits, keys, and what the answer says besides itself.

mod probe;

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::Value;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::model::{
    CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Phase, Unheard,
};
use throughline_schemas::Usage;
use tokio::time::{Instant, timeout_at};

use super::dialect::Dialect;
use super::draft::{self, Draft};
use super::hearer::Hearer;
use super::keys::{KeyRing, Picked, Rest};
use super::options::OptionsByModel;
use super::redact::{recordable, redacted};
use super::refusal::Refusal;
use super::stream::{self, Reader, StreamLimits};
use super::{CallLimits, ModelProvidersError, ProviderSpec, facts};
use crate::fetch::{TRACEPARENT, traceparent};
use crate::http_client;
use crate::http_client::body::{self, BodyError, BodyLimits};
use crate::http_client::url_secrets;

pub use probe::KeyVerdict;

/// The status of an error is known before its body, which may therefore take only this long.
const ERROR_BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// One provider, ready to be called.
pub(super) struct Provider {
    dialect: Box<dyn Dialect>,
    client: Client,
    headers: HeaderMap,
    key_header: HeaderName,
    keys: KeyRing,
    options: OptionsByModel,
    limits: CallLimits,
    clock: Arc<dyn Clock>,
}

/// What is known of a call when it fails.
#[derive(Default)]
struct Known {
    facts: CallFacts,
    usage: Option<Usage>,
}

/// When the limits of a call are over.
#[derive(Clone, Copy)]
struct Deadlines {
    started: Instant,
    begins_by: Instant,
    ends_by: Instant,
}

impl Provider {
    pub(super) fn new(
        spec: ProviderSpec,
        dialect: Box<dyn Dialect>,
        https: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ModelProvidersError> {
        let ProviderSpec { name, kind, base_url, keys, options, limits } = spec;
        let options = OptionsByModel { kind, configured: options };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(dialect.headers().iter().cloned());
        let (key_header, prefix) = dialect.key_header();
        let keys = KeyRing::new(keys, prefix)
            .map_err(|source| ModelProvidersError::ApiKey { provider: name.clone(), source })?
            .with_secrets(url_secrets::secrets(&base_url));
        // A tenth earlier than the others: they say that a request may have been sent, which while connecting is wrong.
        let connect = limits.connect.min(limits.first_token.min(limits.total).saturating_mul(9) / 10);
        let client = http_client::client(connect, https)
            .map_err(|source| ModelProvidersError::Client { provider: name, source })?;
        Ok(Self { dialect, client, headers, key_header, keys, options, limits, clock })
    }

    /// One call; where a key is refused, one more with the next.
    pub(super) async fn generate(
        &self,
        request: &ModelRequest,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        let started = Instant::now();
        let deadlines = Deadlines {
            started,
            begins_by: http_client::after(self.limits.first_token),
            ends_by: http_client::after(self.limits.total),
        };
        let url = self.dialect.url(request);
        let options = self.options.of(&request.model);
        // Text and finite numbers can always be written as JSON.
        let body = serde_json::to_vec(&self.dialect.body(request, options)).unwrap_or_default();
        let body = Bytes::from(body);
        let mut tried = 0;
        loop {
            let picked = self.keys.pick();
            let mut known = Known::default();
            let answer = self.call(request, &url, body.clone(), &picked, deadlines, sink, &mut known).await;
            let Known { facts, usage } = known;
            let error = match answer {
                Ok((draft, raw)) => {
                    let raw = recordable(raw, &picked.redactor);
                    let draft = draft.redacted(&picked.redactor);
                    return Ok(draft.answer(&request.model, usage, raw, facts));
                }
                Err(error) => redacted(error, &picked.redactor),
            };
            tried += 1;
            let why = Rest::after(&error);
            // An answer that had begun is not begun again here.
            let again =
                facts.first_token.is_none() && why.is_some_and(|why| self.keys.rest(&picked, why, tried));
            if !again {
                return Err(ModelFailure { error, usage, facts });
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn call(
        &self,
        request: &ModelRequest,
        url: &Url,
        body: Bytes,
        picked: &Picked,
        deadlines: Deadlines,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(Draft, Value), ModelError> {
        let mut http = self
            .client
            .post(url.clone())
            .headers(self.headers.clone())
            .header(ACCEPT, accept(request.stream))
            .header(TRACEPARENT, traceparent(request.traceparent))
            .body(body);
        if let Some(key) = &picked.header {
            http = http.header(self.key_header.clone(), key.clone());
        }
        let Deadlines { begins_by, ends_by, .. } = deadlines;
        let response = match timeout_at(begins_by.min(ends_by), http.send()).await {
            Ok(response) => response.map_err(|error| send_error(url, &error))?,
            Err(_) if begins_by < ends_by => return Err(ModelError::TimedOut(Phase::FirstToken)),
            Err(_) => return Err(ModelError::TimedOut(Phase::Total)),
        };
        known.facts = facts::read(&response, &picked.redactor, self.clock.now());
        let status = response.status();
        if !status.is_success() {
            let body = self.error_body(response, ends_by).await;
            let refusal = Refusal::read(&body, &picked.redactor);
            known.facts.retry_after = known.facts.retry_after.or_else(|| refusal.wait());
            return Err(refusal.classify(status));
        }
        if let Some(encoding) = http_client::unwanted_encoding(response.headers()) {
            return Err(ModelError::BadResponse(format!(
                "it is compressed ({encoding}), which was not asked for"
            )));
        }
        // What came counts, not what was asked for: some servers stream, or do not, whatever they are told.
        if is_stream(&response, request.stream) {
            self.stream(request, url, response, picked, deadlines, sink, known).await
        } else {
            self.whole(request, url, response, picked, deadlines, sink, known).await
        }
    }

    #[allow(clippy::too_many_arguments)]
    async fn whole(
        &self,
        request: &ModelRequest,
        url: &Url,
        response: Response,
        picked: &Picked,
        deadlines: Deadlines,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(Draft, Value), ModelError> {
        let content_type = http_client::content_type(response.headers());
        let limits = BodyLimits {
            max_bytes: self.limits.max_response_bytes,
            between_pieces: Some(self.limits.read),
            deadline: deadlines.ends_by,
        };
        let body = body::read(response, limits).await.map_err(|error| match error {
            BodyError::TooLarge => ModelError::TooLarge(self.limits.max_response_bytes),
            BodyError::Stalled => ModelError::TimedOut(Phase::Read),
            BodyError::Late => ModelError::TimedOut(Phase::Total),
            BodyError::Broken(error) => ModelError::CutShort(http_client::describe(url, &error)),
        })?;
        let received = format!("{content_type}, {} bytes", body.len());
        let raw = draft::parse(&body, &picked.redactor).map_err(|unusable| unusable.error(&received))?;
        known.usage = self.dialect.usage(&raw);
        let draft = self.dialect.read(&raw).and_then(|draft| draft.check(&request.format));
        let draft = draft.map_err(|unusable| unusable.error(&received))?;
        if request.stream {
            let mut hearer = Hearer::new(sink, &picked.redactor, deadlines.started);
            hearer.reasoning(&draft.reasoning);
            hearer.text(&draft.text);
            hearer.finish();
            known.facts.first_token = hearer.first();
        }
        Ok((draft, raw))
    }

    #[allow(clippy::too_many_arguments)]
    async fn stream(
        &self,
        request: &ModelRequest,
        url: &Url,
        response: Response,
        picked: &Picked,
        deadlines: Deadlines,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(Draft, Value), ModelError> {
        let content_type = http_client::content_type(response.headers());
        let sink: &dyn DeltaSink = if request.stream { sink } else { &Unheard };
        let mut hearer = Hearer::new(sink, &picked.redactor, deadlines.started);
        let mut assembly = self.dialect.assembly(self.limits.max_response_bytes);
        let limits = StreamLimits {
            max_bytes: self.limits.max_response_bytes,
            read: self.limits.read,
            begins_by: deadlines.begins_by,
            ends_by: deadlines.ends_by,
        };
        let reader = Reader::new(assembly.as_mut(), &mut hearer, &picked.redactor, limits.max_bytes);
        let result = stream::read(response, url, reader, limits).await;
        let (text, reasoning) = hearer.finish();
        known.facts.first_token = hearer.first();
        let mut raw = std::mem::take(assembly.raw());
        known.usage = self.dialect.usage(&raw);
        result?;
        picked.redactor.json(&mut raw);
        let draft = self.dialect.read(&raw).and_then(|draft| {
            // What was heard is what was said.
            let draft = Draft { text, reasoning, refusal: None, ..draft };
            draft.check(&request.format)
        });
        Ok((draft.map_err(|unusable| unusable.error(&content_type))?, raw))
    }

    /// What there is of an error's body. Its status counts even if the body is late, broken or too large.
    async fn error_body(&self, response: Response, ends_by: Instant) -> Bytes {
        let limits = BodyLimits {
            max_bytes: self.limits.max_response_bytes,
            between_pieces: None,
            deadline: ends_by.min(http_client::after(ERROR_BODY_TIMEOUT.min(self.limits.read))),
        };
        body::read(response, limits).await.unwrap_or_default()
    }
}

/// Some servers decide by it whether they stream.
fn accept(stream: bool) -> HeaderValue {
    HeaderValue::from_static(if stream { "text/event-stream" } else { "application/json" })
}

/// Whether the answer comes in events: as it says itself, or, if it says nothing of use, as was asked.
fn is_stream(response: &Response, asked: bool) -> bool {
    let content_type = http_client::content_type(response.headers()).to_ascii_lowercase();
    let says = |kind: &str| content_type.contains(kind);
    says("event-stream") || (asked && !says("json") && !says("html"))
}

/// Without an answer, the question is whether the request was sent.
fn send_error(url: &Url, error: &reqwest::Error) -> ModelError {
    let description = || http_client::describe(url, error);
    if !error.is_connect() {
        return ModelError::CutShort(description());
    }
    if error.is_timeout() {
        return ModelError::TimedOut(Phase::Connect);
    }
    ModelError::Unreachable(description())
}
