//! Passes the pieces of an answer on as they come, without the provider's keys.

use std::sync::Arc;
use std::time::Duration;

use throughline_actors::ports::model::{Delta, DeltaSink};
use tokio::time::Instant;

use crate::http_client::credential::{Redactor, Sieve};

/// Stands between a stream and its sink.
pub(super) struct Hearer<'a> {
    sink: &'a dyn DeltaSink,
    started: Instant,
    first: Option<Duration>,
    text: Channel,
    reasoning: Channel,
}

/// One of the two kinds of pieces: what was passed on of it, and what may yet turn out to be a key.
struct Channel {
    sieve: Sieve,
    heard: String,
}

impl Channel {
    fn new(redactor: &Arc<Redactor>) -> Self {
        Self { sieve: Sieve::new(Arc::clone(redactor)), heard: String::new() }
    }

    /// Returns where the new part of what was heard begins.
    fn take(&mut self, piece: &str) -> usize {
        let before = self.heard.len();
        self.sieve.push(piece, &mut self.heard);
        before
    }

    fn end(&mut self) -> usize {
        let before = self.heard.len();
        self.sieve.finish(&mut self.heard);
        before
    }
}

impl<'a> Hearer<'a> {
    /// `started` is when the call began.
    pub(super) fn new(sink: &'a dyn DeltaSink, redactor: &Arc<Redactor>, started: Instant) -> Self {
        Self { sink, started, first: None, text: Channel::new(redactor), reasoning: Channel::new(redactor) }
    }

    /// The next piece of text.
    pub(super) fn text(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.begun();
            let from = self.text.take(piece);
            self.tell_text(from);
        }
    }

    /// The next piece of reasoning.
    pub(super) fn reasoning(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.begun();
            let from = self.reasoning.take(piece);
            self.tell_reasoning(from);
        }
    }

    /// Something of the answer has come that nobody reads as it comes, such as the arguments of a tool call.
    pub(super) fn begun(&mut self) {
        self.first.get_or_insert_with(|| self.started.elapsed());
    }

    /// Whether any text has come.
    pub(super) fn has_text(&self) -> bool {
        !self.text.heard.is_empty() || self.text.sieve.holds()
    }

    /// Time from the start of the call to the first piece.
    pub(super) fn first(&self) -> Option<Duration> {
        self.first
    }

    /// Lets go of what was held back; returns the text and the reasoning that the sink has heard.
    pub(super) fn finish(&mut self) -> (String, String) {
        let from = self.reasoning.end();
        self.tell_reasoning(from);
        let from = self.text.end();
        self.tell_text(from);
        (std::mem::take(&mut self.text.heard), std::mem::take(&mut self.reasoning.heard))
    }

    fn tell_text(&self, from: usize) {
        let new = &self.text.heard[from..];
        if !new.is_empty() {
            self.sink.delta(Delta::Text(new));
        }
    }

    fn tell_reasoning(&self, from: usize) {
        let new = &self.reasoning.heard[from..];
        if !new.is_empty() {
            self.sink.delta(Delta::Reasoning(new));
        }
    }
}
