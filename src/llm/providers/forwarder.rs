//! Passes the pieces of an answer on as they come, without the provider's keys, and separates its text from its reasoning.

use std::sync::Arc;
use std::time::Duration;

use throughline_actors::ports::model::{Delta, DeltaSink};
use tokio::time::Instant;

use super::halves::Joiner;
use super::thinking::{self, Parts, Splitter};
use crate::http_client::credential::{Redactor, Sieve};

/// Stands between a stream and its sink.
pub(super) struct Forwarder<'a> {
    sink: &'a dyn DeltaSink,
    started: Instant,
    first: Option<Duration>,
    /// Reasoning that stands in the text.
    splitter: Splitter,
    text: Channel,
    reasoning: Channel,
    /// Whether halves of surrogate pairs may come.
    has_halves: bool,
}

/// One of the two kinds of pieces: what was passed on of it, and what may yet turn out to be a key.
struct Channel {
    joiner: Joiner,
    sieve: Sieve,
    heard: String,
}

impl Channel {
    fn new(redactor: &Arc<Redactor>) -> Self {
        Self { joiner: Joiner::default(), sieve: Sieve::new(Arc::clone(redactor)), heard: String::new() }
    }

    /// Returns where the new part of what was forwarded begins.
    fn take(&mut self, piece: &str, has_halves: bool) -> usize {
        let before = self.heard.len();
        if has_halves {
            let joined = self.joiner.push(piece);
            self.sieve.push(&joined, &mut self.heard);
        } else {
            self.sieve.push(piece, &mut self.heard);
        }
        before
    }

    fn end(&mut self) -> usize {
        let before = self.heard.len();
        self.sieve.push(self.joiner.finish(), &mut self.heard);
        self.sieve.finish(&mut self.heard);
        before
    }
}

impl<'a> Forwarder<'a> {
    /// `started` is when the call began.
    pub(super) fn new(sink: &'a dyn DeltaSink, redactor: &Arc<Redactor>, started: Instant) -> Self {
        Self {
            sink,
            started,
            first: None,
            splitter: Splitter::default(),
            text: Channel::new(redactor),
            reasoning: Channel::new(redactor),
            has_halves: false,
        }
    }

    /// From here on there may be stand-ins for halves of surrogate pairs.
    pub(super) fn expect_halves(&mut self) {
        self.has_halves = true;
    }

    pub(super) fn has_halves(&self) -> bool {
        self.has_halves
    }

    /// The next piece of text.
    pub(super) fn text(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.begun();
            let parts = self.splitter.push(piece);
            self.take(&parts);
        }
    }

    /// The next piece of reasoning.
    pub(super) fn reasoning(&mut self, piece: &str) {
        if !piece.is_empty() {
            self.begun();
            let from = self.reasoning.take(piece, self.has_halves);
            self.forward_reasoning(from);
        }
    }

    /// Something of the answer has come that nobody reads as it comes, such as the arguments of a tool call.
    pub(super) fn begun(&mut self) {
        self.first.get_or_insert_with(|| self.started.elapsed());
    }

    /// Time from the start of the call to the first piece.
    pub(super) fn first(&self) -> Option<Duration> {
        self.first
    }

    /// How many bytes have been forwarded, of both kinds.
    pub(super) fn bytes(&self) -> usize {
        self.text.heard.len() + self.reasoning.heard.len()
    }

    /// Lets go of what was held back; returns the text and the reasoning that the sink has got.
    pub(super) fn finish(&mut self) -> (String, String) {
        let parts = self.splitter.finish();
        self.take(&parts);
        let from = self.reasoning.end();
        self.forward_reasoning(from);
        let from = self.text.end();
        self.forward_text(from);
        let (text, reasoning) =
            (std::mem::take(&mut self.text.heard), std::mem::take(&mut self.reasoning.heard));
        // It can only be seen in hindsight.
        match thinking::closed_only(&text) {
            Some(parts) => {
                self.sink.delta(Delta::Void);
                if !parts.text.is_empty() {
                    self.sink.delta(Delta::Text(&parts.text));
                }
                (parts.text, reasoning + &parts.reasoning)
            }
            None => (text, reasoning),
        }
    }

    fn take(&mut self, Parts { reasoning, text }: &Parts) {
        let from = self.reasoning.take(reasoning, self.has_halves);
        self.forward_reasoning(from);
        let from = self.text.take(text, self.has_halves);
        self.forward_text(from);
    }

    fn forward_text(&self, from: usize) {
        let new = &self.text.heard[from..];
        if !new.is_empty() {
            self.sink.delta(Delta::Text(new));
        }
    }

    fn forward_reasoning(&self, from: usize) {
        let new = &self.reasoning.heard[from..];
        if !new.is_empty() {
            self.sink.delta(Delta::Reasoning(new));
        }
    }
}
