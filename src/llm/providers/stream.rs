//! Reading an answer that comes in events, within limits of size and time.

use std::time::Duration;

use serde_json::Value;
use throughline_actors::ports::model::{ModelError, Phase};
use tokio::time::{Instant, timeout, timeout_at};

use super::dialect::{Assembly, Fault, Progress};
use super::error_body::{ProviderError, failure_in};
use super::forwarder::Forwarder;
use super::incoming::{Incoming, Limits};
use super::json;
use super::parsed_answer::preview;
use super::sse::{Event, Parser};
use crate::http_client::credential::Redactor;
use crate::http_client::{self, text, without_bom};

/// How long the end of the connection's answer is waited for after the end of the stream, so that the connection can
/// be used again. Most servers send both at once.
const DRAIN: Duration = Duration::from_millis(10);
/// How long more is waited for after the reason to stop: usage, which comes at once, and the end, which some servers never
/// send.
const SETTLE: Duration = Duration::from_secs(2);
/// Longest word of a server that is remembered although it is none of the protocol's, in characters.
const MAX_ASIDE_CHARS: usize = 200;

/// Reads the stream to its end. Success means that the provider said that the answer is complete.
pub(super) async fn read(
    incoming: &mut Incoming<'_>,
    reader: &mut Reader<'_, '_>,
    limits: Limits,
) -> Result<(), ModelError> {
    let mut settled_by: Option<Instant> = None;
    while reader.state.progress == Progress::Goes {
        let (pause_ends, phase) = match reader.forwarder.first() {
            Some(_) => (http_client::after(limits.read), Phase::Read),
            None => (limits.begins_by, Phase::FirstToken),
        };
        let piece = match settled_by {
            None => incoming.piece_by(pause_ends, phase).await?,
            // The answer is there; whatever keeps the connection open does not make it more complete.
            Some(then) if Instant::now() >= then => return reader.end(),
            Some(then) => match timeout_at(then.min(limits.ends_by), incoming.piece()).await {
                Ok(piece) => piece?,
                Err(_) => return reader.end(),
            },
        };
        let Some(piece) = piece else {
            return reader.end();
        };
        incoming.check_room()?;
        reader.push(&piece)?;
        if !reader.state.is_over() {
            settled_by = None;
        } else if settled_by.is_none() {
            settled_by = Some(http_client::after(SETTLE));
        }
    }
    let drain = async { while let Ok(Some(_)) = incoming.piece().await {} };
    let _in_time = timeout(DRAIN, drain).await;
    reader.end()
}

/// Takes a stream in pieces of any size.
pub(super) struct Reader<'r, 'h> {
    parser: Parser,
    state: State<'r>,
    forwarder: &'r mut Forwarder<'h>,
    max_bytes: usize,
    /// How much of what is not of the format has been looked at.
    stray: usize,
    /// Whether the marker of the end is enough, without a reason to stop.
    marker_is_enough: bool,
}

struct State<'r> {
    assembly: &'r mut dyn Assembly,
    redactor: &'r Redactor,
    events: usize,
    progress: Progress,
    /// Text came behind a reason to stop: some servers give one with every piece, which says nothing of the end.
    goes_on: bool,
    /// The last words that were no event of the protocol's.
    aside: Option<String>,
}

impl<'r, 'h> Reader<'r, 'h> {
    /// `max_bytes` is for one event. `marker_is_enough`: the provider never says why its answers end.
    pub(super) fn new(
        assembly: &'r mut dyn Assembly,
        forwarder: &'r mut Forwarder<'h>,
        redactor: &'r Redactor,
        max_bytes: usize,
        marker_is_enough: bool,
    ) -> Self {
        let state =
            State { assembly, redactor, events: 0, progress: Progress::Goes, goes_on: false, aside: None };
        Self { parser: Parser::new(max_bytes), state, forwarder, max_bytes, stray: 0, marker_is_enough }
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Progress, ModelError> {
        let Self { parser, state, forwarder, .. } = self;
        parser.push(piece, |event| state.take(event, forwarder)).map_err(|fault| self.error(fault))?;
        let stray = self.parser.stray();
        if stray.len() > self.stray {
            self.stray = stray.len();
            if let Some(refusal) = stray_error(stray, self.state.redactor) {
                return Err(refusal.classify_success());
            }
        }
        Ok(self.state.progress)
    }

    /// From here on there may be stand-ins for halves of surrogate pairs.
    pub(super) fn expect_halves(&mut self) {
        self.forwarder.expect_halves();
    }

    /// An event that came as a document of its own.
    pub(super) fn document(&mut self, value: Value) -> Result<(), ModelError> {
        self.state.events += 1;
        let Self { state, forwarder, .. } = self;
        state.value(value, forwarder).map_err(|fault| self.error(fault))
    }

    /// The connection has nothing more. An event without its end that makes no sense was cut off.
    pub(super) fn end(&mut self) -> Result<(), ModelError> {
        let Self { parser, state, forwarder, .. } = self;
        match parser.finish(|event| state.take(event, forwarder)) {
            Err(Fault::Said(refusal)) => return Err(refusal.classify_success()),
            Ok(()) | Err(Fault::Malformed(_) | Fault::TooLarge) => {}
        }
        let State { assembly, redactor, events, progress, aside, goes_on: _ } = &self.state;
        // What was cut lacks the reason to stop; the marker alone also ends streams that were cut.
        if assembly.is_finished() || (self.marker_is_enough && *progress == Progress::Ended) {
            return Ok(());
        }
        let said = aside.as_deref().map(ProviderError::in_words);
        if let Some(refusal) = said.as_ref().filter(|refusal| refusal.is_telling()) {
            return Err(refusal.classify_success());
        }
        let stray = self.parser.stray();
        Err(ModelError::BadResponse(match (events, aside) {
            (0, _) if !stray.is_empty() => {
                format!("there is no event in the stream; it begins {:?}", preview(stray, redactor))
            }
            (0, None) => "there is no event in the stream".to_owned(),
            (events, None) => {
                format!("the stream ended after {events} events without saying that the answer is complete")
            }
            (events, Some(aside)) => format!(
                "the stream ended after {events} events without saying that the answer is complete; it said {aside:?}"
            ),
        }))
    }

    fn error(&self, fault: Fault) -> ModelError {
        match fault {
            Fault::Said(refusal) => refusal.classify_success(),
            Fault::Malformed(what) => ModelError::BadResponse(what),
            Fault::TooLarge => ModelError::TooLarge(self.max_bytes),
        }
    }
}

impl State<'_> {
    fn take(&mut self, event: Event<'_>, forwarder: &mut Forwarder<'_>) -> Result<(), Fault> {
        let data = event.data.trim_ascii();
        if self.progress == Progress::Ended || data.is_empty() {
            return Ok(());
        }
        if is_done(data) {
            self.progress = Progress::Ended;
            return Ok(());
        }
        let is_error = event.name.eq_ignore_ascii_case(b"error");
        let read = match json::read(data) {
            Ok(read) => read,
            Err(_) if is_error => return Err(Fault::Said(ProviderError::read(data, self.redactor))),
            // A sign of life, whatever its name. Only what begins like JSON or like a page is something broken.
            Err(_) if !begins_broken(data) => {
                self.remember(&String::from_utf8_lossy(data));
                return Ok(());
            }
            Err(error) => {
                return Err(Fault::Malformed(format!("event {} is not JSON: {error}", self.events + 1)));
            }
        };
        if read.has_halves {
            forwarder.expect_halves();
        }
        if is_error {
            return Err(Fault::Said(ProviderError::of(&read.value, self.redactor)));
        }
        match read.value {
            value @ Value::Object(_) => self.event(value, forwarder),
            Value::Array(items) => {
                items.into_iter().filter(Value::is_object).try_for_each(|item| self.event(item, forwarder))
            }
            Value::String(words) => {
                self.remember(&words);
                Ok(())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn event(&mut self, value: Value, forwarder: &mut Forwarder<'_>) -> Result<(), Fault> {
        self.events += 1;
        self.value(value, forwarder)
    }

    fn value(&mut self, value: Value, forwarder: &mut Forwarder<'_>) -> Result<(), Fault> {
        if let Some(refusal) = failure_in(&value, self.redactor) {
            return Err(Fault::Said(refusal));
        }
        let (finished, before) = (self.assembly.is_finished(), forwarder.bytes());
        if self.assembly.json(value, forwarder)? == Progress::Ended {
            self.progress = Progress::Ended;
        }
        self.goes_on |= finished && forwarder.bytes() > before;
        Ok(())
    }

    /// Whether nothing more of the answer comes.
    fn is_over(&self) -> bool {
        self.assembly.is_finished() && !self.goes_on
    }

    fn remember(&mut self, words: &str) {
        let mut words = words.to_owned();
        self.redactor.text(&mut words);
        self.aside = Some(text::one_line(&words, MAX_ASIDE_CHARS)).filter(|words| !words.is_empty());
    }
}

/// Whether data that is not JSON begins like JSON or like a page. `[PING]` does not.
fn begins_broken(data: &[u8]) -> bool {
    match data {
        [b'{' | b'<', ..] => true,
        [b'[', second, ..] => !second.is_ascii_alphabetic(),
        _ => data == b"[",
    }
}

/// The marker of the end, as `OpenAI` writes it and others have taken it over.
fn is_done(data: &[u8]) -> bool {
    let data = data.strip_prefix(b"\"").and_then(|data| data.strip_suffix(b"\"")).unwrap_or(data);
    data.eq_ignore_ascii_case(b"[DONE]")
}

/// Gemini can end a stream with an error that stands there as plain JSON.
fn stray_error(stray: &[u8], redactor: &Redactor) -> Option<ProviderError> {
    if !matches!(stray.trim_ascii_end().last(), Some(b'}' | b']')) {
        return None;
    }
    let value = json::read(without_bom(stray)).ok()?.value;
    let value = if value.is_array() { &value[0] } else { &value };
    failure_in(value, redactor)
}
