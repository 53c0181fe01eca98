//! Removing secrets from a text that comes in pieces.

use std::sync::Arc;

use super::{REDACTED, Redactor};

/// Holds back what could be the beginning of a secret until more is known, so that one that is spread over pieces is
/// found, too.
#[derive(Debug)]
pub(crate) struct Sieve {
    redactor: Arc<Redactor>,
    held: String,
}

impl Sieve {
    pub(crate) fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: String::new() }
    }

    /// Appends to `clean` what is certain.
    pub(crate) fn push(&mut self, piece: &str, clean: &mut String) {
        if self.redactor.secrets.is_empty() {
            clean.push_str(piece);
            return;
        }
        self.held.push_str(piece);
        let (mut at, mut done) = (0, 0);
        while at < self.held.len() {
            let found = self.redactor.look(&self.held, at);
            if found.is_open {
                // A longer secret than one that is complete here, perhaps.
                break;
            }
            match found.end {
                Some(end) => {
                    clean.push_str(&self.held[done..at]);
                    clean.push_str(REDACTED);
                    (at, done) = (end, end);
                }
                None => at += 1,
            }
        }
        clean.push_str(&self.held[done..at]);
        self.held.drain(..at);
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self, clean: &mut String) {
        self.redactor.text(&mut self.held);
        clean.push_str(&self.held);
        self.held.clear();
    }
}
