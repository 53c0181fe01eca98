//! One call to a provider, in whichever dialect: limits, keys, and what the answer says besides itself.

mod probe;
mod receive;

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url};
use serde_json::Value;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::model::{
    CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Phase,
};
use throughline_schemas::Usage;
use tokio::time::{Instant, timeout_at};

use super::dialect::Dialect;
use super::keys::{KeyRing, Picked, Rest};
use super::options::OptionsByModel;
use super::parsed_answer::ParsedAnswer;
use super::redact::{recordable, redacted};
use super::{CallLimits, ModelProvidersError, ProviderSpec, error_body};
use crate::http_client::traceparent::{TRACEPARENT, traceparent};
use crate::http_client::{self, coding, url_secrets};

pub use probe::KeyVerdict;

/// One provider, ready to be called.
pub(super) struct Provider {
    dialect: Box<dyn Dialect>,
    client: Client,
    headers: HeaderMap,
    /// The operator's, which replace others.
    own_headers: HeaderMap,
    key_header: HeaderName,
    keys: KeyRing,
    options: OptionsByModel,
    limits: CallLimits,
    /// It never says why its answers end.
    marker_is_enough: bool,
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
        let ProviderSpec { name, kind, base_url, keys, options, limits, settings } = spec;
        let options = OptionsByModel { kind, configured: options };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(dialect.headers().iter().cloned());
        let setting = |source| ModelProvidersError::Setting { provider: name.clone(), source };
        let (key_header, prefix) = settings.key_header(dialect.key_header()).map_err(setting)?;
        let own_headers = settings.headers().map_err(setting)?;
        let mut others = settings.secrets();
        others.extend(url_secrets::secrets(&base_url));
        let keys = KeyRing::new(&name, keys, prefix, others)
            .map_err(|source| ModelProvidersError::ApiKey { provider: name.clone(), source })?;
        settings
            .proxies
            .check()
            .map_err(|source| ModelProvidersError::Proxy { provider: name.clone(), source })?;
        error_body::prepare();
        // A tenth earlier than the others: they say that a request may have been sent, which while connecting is wrong.
        let connect = limits.connect.min(limits.first_token.min(limits.total).saturating_mul(9) / 10);
        let client = http_client::client(connect, https, &settings.proxies)
            .map_err(|source| ModelProvidersError::Client { provider: name, source })?;
        Ok(Self {
            dialect,
            client,
            headers,
            own_headers,
            key_header,
            keys,
            options,
            limits,
            marker_is_enough: !settings.sends_finish_reason,
            clock,
        })
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
        let body = written(request, &self.dialect.body(request, options));
        let mut tried = 0;
        loop {
            let picked = self.keys.pick();
            let mut known = Known::default();
            let answer = self.call(request, &url, body.clone(), &picked, deadlines, sink, &mut known).await;
            let Known { facts, usage } = known;
            let error = match answer {
                Ok((parsed, raw)) => {
                    let raw = recordable(raw, &picked.redactor);
                    let parsed = parsed.redacted(&picked.redactor);
                    return Ok(parsed.answer(&request.model, usage, raw, facts));
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
    ) -> Result<(ParsedAnswer, Value), ModelError> {
        let mut http = self
            .client
            .post(url.clone())
            .headers(self.headers.clone())
            .header(ACCEPT, accept(request.stream))
            .header(ACCEPT_ENCODING, HeaderValue::from_static(coding::ACCEPTED))
            .header(TRACEPARENT, traceparent(request.traceparent))
            .body(body);
        if let Some(key) = &picked.header {
            http = http.header(self.key_header.clone(), key.clone());
        }
        http = http.headers(self.own_headers.clone());
        let Deadlines { begins_by, ends_by, .. } = deadlines;
        let response = match timeout_at(begins_by.min(ends_by), http.send()).await {
            Ok(response) => response.map_err(|error| send_error(url, &error))?,
            Err(_) if begins_by < ends_by => return Err(ModelError::TimedOut(Phase::FirstToken)),
            Err(_) => return Err(ModelError::TimedOut(Phase::Total)),
        };
        self.receive(request, url, response, picked, deadlines, sink, known).await
    }
}

/// A request's body. Room for all of it is made at once: growing would copy what is there, again and again.
fn written(request: &ModelRequest, body: &Value) -> Bytes {
    /// Room for what is not the text of the messages, in bytes.
    const FRAME: usize = 1024;
    let text: usize = request.messages.iter().map(|message| message.content.len()).sum();
    // JSON in JSON has its quotes escaped. What is not written takes no memory.
    let mut written = Vec::with_capacity(text + text / 2 + FRAME);
    // Text and finite numbers can always be written as JSON.
    let _ = serde_json::to_writer(&mut written, body);
    written.into()
}

/// Some servers decide by it whether they stream.
fn accept(stream: bool) -> HeaderValue {
    HeaderValue::from_static(if stream { "text/event-stream" } else { "application/json" })
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

#[cfg(test)]
impl Provider {
    /// What comes of an answer to a call that is not made.
    pub(super) async fn receive_for_test(
        &self,
        request: &ModelRequest,
        response: reqwest::Response,
        sink: &dyn DeltaSink,
    ) -> Result<ModelAnswer, ModelFailure> {
        let started = Instant::now();
        let deadlines = Deadlines {
            started,
            begins_by: http_client::after(self.limits.first_token),
            ends_by: http_client::after(self.limits.total),
        };
        let (url, picked, mut known) = (self.dialect.url(request), self.keys.pick(), Known::default());
        let result = self.receive(request, &url, response, &picked, deadlines, sink, &mut known).await;
        let Known { facts, usage } = known;
        match result {
            Ok((parsed, raw)) => Ok(parsed.answer(&request.model, usage, raw, facts)),
            Err(error) => Err(ModelFailure { error, usage, facts }),
        }
    }
}
