//! What comes of an answer that has begun.

use std::time::Duration;

use reqwest::{Response, Url};
use serde_json::Value;
use throughline_actors::ports::model::{Delta, DeltaSink, ModelError, ModelRequest, Unheard};
use throughline_schemas::FinishReason;
use tokio::time::Instant;

use super::{Deadlines, Known, Provider};
use crate::http_client;
use crate::llm::providers::document::{self, Documents};
use crate::llm::providers::draft::{Draft, Unusable, is_blank};
use crate::llm::providers::hearer::Hearer;
use crate::llm::providers::incoming::{Form, Incoming, Limits};
use crate::llm::providers::keys::Picked;
use crate::llm::providers::refusal::Refusal;
use crate::llm::providers::stream::{self, Reader};
use crate::llm::providers::{facts, halves, usage};

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
        check_count(&draft, known);
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
        check_count(&draft, known);
        Ok((draft, raw))
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
fn check_count(draft: &Draft, known: &mut Known) {
    let is_answer = !is_blank(&draft.text) || !draft.tool_calls.is_empty();
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
