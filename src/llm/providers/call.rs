//! One call to a provider, in whichever dialect: limits, keys, and what the answer says besides itself.

mod probe;

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::Value;
use throughline_actors::ports::clock::Clock;
use throughline_actors::ports::model::{
    CallFacts, Delta, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Phase, Unheard,
};
use throughline_schemas::{FinishReason, Usage};
use tokio::time::{Instant, timeout_at};

use super::dialect::Dialect;
use super::document::{self, Documents};
use super::draft::{Draft, Unusable, is_blank};
use super::hearer::Hearer;
use super::incoming::{Form, Incoming, Limits};
use super::keys::{KeyRing, Picked, Rest};
use super::options::OptionsByModel;
use super::redact::{recordable, redacted};
use super::refusal::Refusal;
use super::stream::{self, Reader};
use super::{CallLimits, ModelProvidersError, ProviderSpec, facts, halves, usage};
use crate::fetch::{TRACEPARENT, traceparent};
use crate::http_client::{self, coding, url_secrets};

pub use probe::KeyVerdict;

/// The status of an error is known before its body, which may therefore take only this long.
const ERROR_BODY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

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

/// An answer whose body is about to be read.
struct Arriving<'a> {
    request: &'a ModelRequest,
    picked: &'a Picked,
    content_type: String,
    limits: Limits,
    started: Instant,
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

    /// What there is to make of an answer that has begun.
    #[allow(clippy::too_many_arguments)]
    async fn receive(
        &self,
        request: &ModelRequest,
        url: &Url,
        response: Response,
        picked: &Picked,
        deadlines: Deadlines,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(Draft, Value), ModelError> {
        let Deadlines { begins_by, ends_by, .. } = deadlines;
        known.facts = facts::read(&response, &picked.redactor, self.clock.now());
        let status = response.status();
        if !status.is_success() {
            let body = self.error_body(response, url, ends_by).await;
            let refusal = Refusal::read(&body, &picked.redactor);
            known.facts.retry_after = known.facts.retry_after.or_else(|| refusal.wait());
            return Err(refusal.classify(status));
        }
        // What came counts, not what was asked for or what its label says: some servers stream, or do not, whatever they
        // are told.
        let labelled = label(&response, request.stream);
        let content_type = http_client::content_type(response.headers());
        let limits =
            Limits { max_bytes: self.limits.max_response_bytes, read: self.limits.read, begins_by, ends_by };
        let mut incoming = Incoming::new(response, url, limits);
        let form = incoming.form(labelled, request.stream).await?;
        let arriving = Arriving { request, picked, content_type, limits, started: deadlines.started };
        match form {
            Form::Events => self.stream(incoming, &arriving, sink, known).await,
            Form::Document => self.document(incoming, &arriving, sink, known).await,
        }
    }

    /// An answer that is one document; or several, which then are the events of a stream.
    async fn document(
        &self,
        mut incoming: Incoming<'_>,
        arriving: &Arriving<'_>,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(Draft, Value), ModelError> {
        let Arriving { request, picked, content_type, .. } = arriving;
        let body = incoming.document().await?;
        let received = format!("{content_type}, {} bytes", body.len());
        let read =
            document::read(&body, &picked.redactor, |value| self.dialect.is_piece(value, request.stream));
        let raw = match read.map_err(|unusable| unusable.error(&received))? {
            Documents::Answer(raw) => raw,
            Documents::Pieces { pieces, has_halves } => {
                return self
                    .pieces(arriving, sink, known, async |reader| {
                        if has_halves {
                            reader.expect_halves();
                        }
                        pieces.into_iter().try_for_each(|piece| reader.document(piece))?;
                        reader.end()
                    })
                    .await;
            }
        };
        self.count(&raw, known);
        let draft = match self.dialect.read(&raw) {
            // Nothing of an answer, but words: what it says of itself.
            Err(unusable @ Unusable::Broken(_)) => {
                let refusal = Refusal::of(&raw, &picked.redactor);
                Err(if refusal.has_words() { Unusable::Said(refusal) } else { unusable })
            }
            read => read,
        };
        let draft = draft.and_then(|draft| draft.without_thinking().check(request));
        let draft = draft.map_err(|unusable| unusable.error(&received))?;
        self.check_count(&draft, known);
        if request.stream {
            known.facts.first_token = Some(arriving.started.elapsed());
            if !draft.reasoning.is_empty() {
                sink.delta(Delta::Reasoning(&draft.reasoning));
            }
            if !draft.text.is_empty() {
                sink.delta(Delta::Text(&draft.text));
            }
        }
        Ok((draft, raw))
    }

    async fn stream(
        &self,
        mut incoming: Incoming<'_>,
        arriving: &Arriving<'_>,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(Draft, Value), ModelError> {
        let limits = arriving.limits;
        self.pieces(arriving, sink, known, async |reader| stream::read(&mut incoming, reader, limits).await)
            .await
    }

    /// Puts together what `read` gives to a reader.
    async fn pieces(
        &self,
        arriving: &Arriving<'_>,
        sink: &dyn DeltaSink,
        known: &mut Known,
        read: impl AsyncFnOnce(&mut Reader<'_, '_>) -> Result<(), ModelError>,
    ) -> Result<(Draft, Value), ModelError> {
        let Arriving { request, picked, content_type, limits, started } = arriving;
        let sink: &dyn DeltaSink = if request.stream { sink } else { &Unheard };
        let mut hearer = Hearer::new(sink, &picked.redactor, *started);
        let mut assembly = self.dialect.assembly(limits.max_bytes);
        let mut reader = Reader::new(
            assembly.as_mut(),
            &mut hearer,
            &picked.redactor,
            limits.max_bytes,
            self.marker_is_enough,
        );
        let result = read(&mut reader).await;
        let (text, reasoning) = hearer.finish();
        known.facts.first_token = hearer.first();
        let mut raw = std::mem::take(assembly.raw());
        if hearer.has_halves() {
            halves::join_all(&mut raw);
        }
        self.count(&raw, known);
        result?;
        picked.redactor.json(&mut raw);
        let draft = self.dialect.read(&raw).and_then(|draft| {
            let is_refusal =
                is_blank(&draft.text) && draft.refusal.as_deref().is_some_and(|words| !is_blank(words));
            // What was heard is what was said; the words of a refusal, too.
            let mut draft = Draft { text, reasoning, refusal: None, ..draft };
            if is_refusal && !draft.finish.failed {
                draft.finish.reason = FinishReason::ContentFilter;
            }
            draft.check(request)
        });
        let draft = draft.map_err(|unusable| unusable.error(content_type))?;
        self.check_count(&draft, known);
        Ok((draft, raw))
    }

    /// What an answer, or what there is of one, says of tokens and money.
    fn count(&self, raw: &Value, known: &mut Known) {
        known.usage = self.dialect.usage(raw);
        known.facts.stated_cost = usage::stated_cost(raw);
    }

    /// Tokens that do not fit an answer with something in it were not counted.
    fn check_count(&self, draft: &Draft, known: &mut Known) {
        let _ = self;
        let is_answer = !is_blank(&draft.text) || !draft.tool_calls.is_empty();
        if is_answer && known.usage.is_some_and(|usage| !usage::is_credible(&usage)) {
            known.usage = None;
            known.facts.counted_nothing = true;
        }
    }

    /// What there is of an error's body. Its status counts even if the body is late, broken or too large.
    async fn error_body(&self, response: Response, url: &Url, ends_by: Instant) -> Vec<u8> {
        let deadline = ends_by.min(http_client::after(ERROR_BODY_TIMEOUT.min(self.limits.read)));
        let limits = Limits {
            max_bytes: self.limits.max_response_bytes,
            read: self.limits.read,
            begins_by: deadline,
            ends_by: deadline,
        };
        Incoming::new(response, url, limits).what_comes_by(deadline).await
    }
}

/// Some servers decide by it whether they stream.
fn accept(stream: bool) -> HeaderValue {
    HeaderValue::from_static(if stream { "text/event-stream" } else { "application/json" })
}

/// Whether the answer comes in events, as it says itself, or, if it says nothing of use, as was asked.
fn label(response: &Response, asked: bool) -> Form {
    let content_type = http_client::content_type(response.headers()).to_ascii_lowercase();
    let says = |kind: &str| content_type.contains(kind);
    if says("event-stream") || (asked && !says("json") && !says("html")) {
        Form::Events
    } else {
        Form::Document
    }
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
        response: Response,
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
            Ok((draft, raw)) => Ok(draft.answer(&request.model, usage, raw, facts)),
            Err(error) => Err(ModelFailure { error, usage, facts }),
        }
    }
}
