//! What the server complains about, passed on to the request that caused it.
//!
//! A forbidden publish or subscription gets no answer: the server says `-ERR 'Permissions Violation for Publish to
//! "subject"'` on the connection, and the request would wait for its time limit.

use std::sync::Arc;

use throughline_actors::ports::bus::BusError;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};

/// What a complaint about permissions contains.
const VIOLATION: &str = "permissions violation";

/// Complaints since this was made.
pub(super) struct Complaints(broadcast::Receiver<Arc<str>>);

impl Complaints {
    pub(super) fn new(receiver: broadcast::Receiver<Arc<str>>) -> Self {
        Self(receiver)
    }

    /// Waits until the server forbids something that mentions `part`, and returns its words. Cancel-safe.
    pub(super) async fn forbidden(&mut self, part: &str) -> String {
        loop {
            match self.0.recv().await {
                Ok(text) if is_about(&text, part) => return in_words(&text),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                // The connection is gone, and with it every request.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    }

    /// What the server has forbidden by now that mentions `part`.
    pub(super) fn forbidden_by_now(&mut self, part: &str) -> Option<String> {
        loop {
            match self.0.try_recv() {
                Ok(text) if is_about(&text, part) => return Some(in_words(&text)),
                Ok(_) | Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// Does `work`, unless the server forbids something meanwhile that mentions `part`.
    pub(super) async fn unless_forbidden<T>(
        mut self,
        part: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, BusError> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            words = self.forbidden(part) => Err(BusError::Forbidden(words)),
        }
    }
}

fn is_about(text: &str, part: &str) -> bool {
    text.to_ascii_lowercase().contains(VIOLATION) && text.contains(part)
}

/// The part of a complaint that is worth repeating: `Publish to "subject"`.
fn in_words(text: &str) -> String {
    text.split_once(" for ").map_or(text, |(_, words)| words).trim_end_matches('\'').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_to_whom_it_is_about() {
        let text = "nats: Permissions Violation for Publish to \"$JS.API.STREAM.DELETE.A_EVENTS\"";
        assert!(is_about(text, "STREAM.DELETE.A_EVENTS"));
        assert!(!is_about(text, "STREAM.DELETE.B_EVENTS"));
        assert!(!is_about("nats: Slow Consumer on A_EVENTS", "A_EVENTS"));
        assert_eq!(in_words(text), "Publish to \"$JS.API.STREAM.DELETE.A_EVENTS\"");
    }
}
