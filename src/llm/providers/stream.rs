//! Reading an answer that comes in events, within limits of size and time.

use std::time::Duration;

use reqwest::{Response, Url};
use serde_json::Value;
use throughline_actors::ports::model::{ModelError, Phase};
use tokio::time::{Instant, timeout, timeout_at};

use super::dialect::{Assembly, Fault, Progress};
use super::draft::preview;
use super::hearer::Hearer;
use super::refusal::{Refusal, is_error};
use super::sse::{Event, Parser};
use crate::http_client::credential::Redactor;
use crate::http_client::{self, without_bom};

/// A stream may be so many times larger than the answer in it: a token of four bytes comes in an event of some 300.
const FRAMING: usize = 64;
/// How long the end of the connection's answer is waited for after the end of the stream, so that the connection can
/// be used again. Most servers send both at once.
const DRAIN: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
pub(super) struct StreamLimits {
    /// Of one event, and of what is kept of all.
    pub max_bytes: usize,
    /// Longest pause between two pieces of the answer, once it has begun.
    pub read: Duration,
    /// When the first piece must be there.
    pub begins_by: Instant,
    /// When the whole answer must be there.
    pub ends_by: Instant,
}

/// Reads the stream to its end. Success means that the provider said that the answer is complete.
pub(super) async fn read(
    mut response: Response,
    url: &Url,
    mut reader: Reader<'_, '_>,
    limits: StreamLimits,
) -> Result<(), ModelError> {
    let mut left = limits.max_bytes.saturating_mul(FRAMING);
    let mut progress = Progress::Goes;
    while progress == Progress::Goes {
        let (pause_ends, phase) = match reader.hearer.first() {
            Some(_) => (http_client::after(limits.read), Phase::Read),
            None => (limits.begins_by, Phase::FirstToken),
        };
        let piece = match timeout_at(pause_ends.min(limits.ends_by), response.chunk()).await {
            Ok(piece) => piece.map_err(|error| ModelError::CutShort(http_client::describe(url, &error)))?,
            Err(_) if pause_ends < limits.ends_by => return Err(ModelError::TimedOut(phase)),
            Err(_) => return Err(ModelError::TimedOut(Phase::Total)),
        };
        let Some(piece) = piece else {
            return reader.end();
        };
        left = left.checked_sub(piece.len()).ok_or(ModelError::TooLarge(limits.max_bytes))?;
        progress = reader.push(&piece)?;
    }
    let drain = async { while let Ok(Some(_)) = response.chunk().await {} };
    let _in_time = timeout(DRAIN, drain).await;
    reader.end()
}

/// Takes a stream in pieces of any size.
pub(super) struct Reader<'r, 'h> {
    parser: Parser,
    state: State<'r>,
    hearer: &'r mut Hearer<'h>,
    max_bytes: usize,
    /// How much of what is not of the format has been looked at.
    stray: usize,
}

struct State<'r> {
    assembly: &'r mut dyn Assembly,
    redactor: &'r Redactor,
    events: usize,
    progress: Progress,
}

impl<'r, 'h> Reader<'r, 'h> {
    /// `max_bytes` is for one event.
    pub(super) fn new(
        assembly: &'r mut dyn Assembly,
        hearer: &'r mut Hearer<'h>,
        redactor: &'r Redactor,
        max_bytes: usize,
    ) -> Self {
        let state = State { assembly, redactor, events: 0, progress: Progress::Goes };
        Self { parser: Parser::new(max_bytes), state, hearer, max_bytes, stray: 0 }
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<Progress, ModelError> {
        let Self { parser, state, hearer, .. } = self;
        parser.push(piece, |event| state.take(event, hearer)).map_err(|fault| self.error(fault))?;
        let stray = self.parser.stray();
        if stray.len() > self.stray {
            self.stray = stray.len();
            if let Some(refusal) = stray_error(stray, self.state.redactor) {
                return Err(refusal.classify_success());
            }
        }
        Ok(self.state.progress)
    }

    /// The connection has nothing more. An event without its end that makes no sense was cut off.
    pub(super) fn end(&mut self) -> Result<(), ModelError> {
        let Self { parser, state, hearer, .. } = self;
        match parser.finish(|event| state.take(event, hearer)) {
            Err(Fault::Said(refusal)) => return Err(refusal.classify_success()),
            Ok(()) | Err(Fault::Malformed(_) | Fault::TooLarge) => {}
        }
        if self.state.assembly.is_complete() {
            return Ok(());
        }
        Err(ModelError::BadResponse(match self.state.events {
            0 => {
                let begins = preview(self.parser.stray(), self.state.redactor);
                format!("there is no event in the stream; it begins {begins:?}")
            }
            events => {
                format!("the stream ended after {events} events without saying that the answer is complete")
            }
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
    fn take(&mut self, event: Event<'_>, hearer: &mut Hearer<'_>) -> Result<(), Fault> {
        let data = event.data.trim_ascii();
        if self.progress == Progress::Ended || data.is_empty() {
            return Ok(());
        }
        self.events += 1;
        if self.assembly.is_end(event) {
            self.progress = Progress::Ended;
            return Ok(());
        }
        let mut value: Value = serde_json::from_slice(data)
            .map_err(|error| Fault::Malformed(format!("event {} is not JSON: {error}", self.events)))?;
        if is_error(&value["error"]) || value["type"] == "error" {
            self.redactor.json(&mut value);
            return Err(Fault::Said(Refusal::of(&value)));
        }
        if !value.is_object() {
            return Err(Fault::Malformed(format!("event {} is not a JSON object", self.events)));
        }
        self.progress = self.assembly.json(value, hearer)?;
        Ok(())
    }
}

/// Gemini can end a stream with an error that stands there as plain JSON.
fn stray_error(stray: &[u8], redactor: &Redactor) -> Option<Refusal> {
    if !matches!(stray.trim_ascii_end().last(), Some(b'}' | b']')) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(without_bom(stray)).ok()?;
    let said = is_error(&value["error"]) || is_error(&value[0]["error"]);
    said.then(|| {
        redactor.json(&mut value);
        Refusal::of(&value)
    })
}
