//! What comes of an answer that has begun.

use std::time::Duration;

use reqwest::{Response, Url};
use serde_json::Value;
use throughline_actors::ports::model::{Delta, DeltaSink, ModelError, ModelRequest, NoSink};
use throughline_schemas::FinishReason;
use tokio::time::Instant;

use super::{Deadlines, Known, Provider};
use crate::http_client;
use crate::llm::providers::document::{self, Documents};
use crate::llm::providers::error_body::ProviderError;
use crate::llm::providers::forwarder::Forwarder;
use crate::llm::providers::incoming::{Form, Incoming, Limits};
use crate::llm::providers::keys::Picked;
use crate::llm::providers::parsed_answer::{ParsedAnswer, Unusable, is_blank};
use crate::llm::providers::stream::{self, Reader};
use crate::llm::providers::{halves, response_headers, usage};

/// The status of an error is known before its body, which may therefore take only this long.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer whose body is about to be read.
struct Arriving<'a> {
    request: &'a ModelRequest,
    picked: &'a Picked,
    content_type: String,
    limits: Limits,
    started: Instant,
}

impl Provider {
    /// What there is to make of an answer that has begun.
    #[allow(clippy::too_many_arguments)]
    pub(super) async fn receive(
        &self,
        request: &ModelRequest,
        url: &Url,
        response: Response,
        picked: &Picked,
        deadlines: Deadlines,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(ParsedAnswer, Value), ModelError> {
        let Deadlines { begins_by, ends_by, .. } = deadlines;
        known.facts = response_headers::read(&response, &picked.redactor, self.clock.now());
        let status = response.status();
        if !status.is_success() {
            let body = self.error_body(response, url, ends_by).await;
            let refusal = ProviderError::read(&body, &picked.redactor);
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
    ) -> Result<(ParsedAnswer, Value), ModelError> {
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
        let parsed = match self.dialect.read(&raw) {
            // Nothing of an answer, but words: what it says of itself.
            Err(unusable @ Unusable::Broken(_)) => {
                let refusal = ProviderError::of(&raw, &picked.redactor);
                Err(if refusal.has_words() { Unusable::Said(refusal) } else { unusable })
            }
            read => read,
        };
        let parsed = parsed.and_then(|parsed| parsed.without_thinking().check(request));
        let parsed = parsed.map_err(|unusable| unusable.error(&received))?;
        check_count(&parsed, known);
        if request.stream {
            known.facts.first_token = Some(arriving.started.elapsed());
            if !parsed.reasoning.is_empty() {
                sink.delta(Delta::Reasoning(&parsed.reasoning));
            }
            if !parsed.text.is_empty() {
                sink.delta(Delta::Text(&parsed.text));
            }
        }
        Ok((parsed, raw))
    }

    async fn stream(
        &self,
        mut incoming: Incoming<'_>,
        arriving: &Arriving<'_>,
        sink: &dyn DeltaSink,
        known: &mut Known,
    ) -> Result<(ParsedAnswer, Value), ModelError> {
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
    ) -> Result<(ParsedAnswer, Value), ModelError> {
        let Arriving { request, picked, content_type, limits, started } = arriving;
        let sink: &dyn DeltaSink = if request.stream { sink } else { &NoSink };
        let mut forwarder = Forwarder::new(sink, &picked.redactor, *started);
        let mut assembly = self.dialect.assembly(limits.max_bytes);
        let mut reader = Reader::new(
            assembly.as_mut(),
            &mut forwarder,
            &picked.redactor,
            limits.max_bytes,
            self.marker_is_enough,
        );
        let result = read(&mut reader).await;
        let (text, reasoning) = forwarder.finish();
        known.facts.first_token = forwarder.first();
        let mut raw = std::mem::take(assembly.raw());
        if forwarder.has_halves() {
            halves::join_all(&mut raw);
        }
        self.count(&raw, known);
        result?;
        picked.redactor.json(&mut raw);
        let parsed = self.dialect.read(&raw).and_then(|parsed| {
            let is_refusal =
                is_blank(&parsed.text) && parsed.refusal.as_deref().is_some_and(|words| !is_blank(words));
            // What was heard is what was said; the words of a refusal, too.
            let mut parsed = ParsedAnswer { text, reasoning, refusal: None, ..parsed };
            if is_refusal && !parsed.finish.failed {
                parsed.finish.reason = FinishReason::ContentFilter;
            }
            parsed.check(request)
        });
        let parsed = parsed.map_err(|unusable| unusable.error(content_type))?;
        check_count(&parsed, known);
        Ok((parsed, raw))
    }

    /// What an answer, or what there is of one, says of tokens and money.
    fn count(&self, raw: &Value, known: &mut Known) {
        known.usage = self.dialect.usage(raw);
        known.facts.stated_cost = usage::stated_cost(raw);
    }

    /// What there is of an error's body. Its status counts even if the body is late, broken or too large.
    pub(super) async fn error_body(&self, response: Response, url: &Url, ends_by: Instant) -> Vec<u8> {
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

/// Tokens that do not fit an answer with something in it were not counted.
fn check_count(parsed: &ParsedAnswer, known: &mut Known) {
    let is_answer = !is_blank(&parsed.text) || !parsed.tool_calls.is_empty();
    if is_answer && known.usage.is_some_and(|usage| !usage::is_credible(&usage)) {
        known.usage = None;
        known.facts.counted_nothing = true;
    }
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
