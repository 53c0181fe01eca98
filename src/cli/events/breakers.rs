//! Breakers that open and close while events are followed.

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use serde::Deserialize;
use throughline_actors::ports::bus::Broadcast;

use crate::{
    bus::nats::NatsBus,
    cli::{Failure, bus_error},
};

/// How much of an announcement is shown, in characters: a cause has at most 500 bytes.
const MAX_CHARS: usize = 700;

/// Announcements of breakers. They are not stored.
pub(super) struct Breakers {
    messages: BoxStream<'static, Bytes>,
}

/// One announcement.
#[derive(Debug)]
pub(super) struct Moved(Bytes);

#[derive(Deserialize)]
struct Announced {
    stage: String,
    dependency: String,
    from: String,
    to: String,
    #[serde(default)]
    cause: Option<String>,
}

impl Breakers {
    pub(super) async fn open(bus: &NatsBus) -> Result<Self, Failure> {
        let messages = bus.announced_on("breaker").await.map_err(|error| bus_error::failure(&error))?;
        Ok(Self { messages })
    }

    /// The next announcement; never, if there is nothing to listen to. Cancel-safe.
    pub(super) async fn next(breakers: &mut Option<Self>) -> Moved {
        if let Some(breakers) = breakers
            && let Some(message) = breakers.messages.next().await
        {
            return Moved(message);
        }
        *breakers = None;
        std::future::pending().await
    }
}

impl Moved {
    /// In the shape of an event, of the type `breaker_moved`. Nothing if it is not JSON.
    pub(super) fn json(&self) -> Option<String> {
        let data: serde_json::Value = serde_json::from_slice(&self.0).ok()?;
        Some(serde_json::json!({ "type": "breaker_moved", "data": data }).to_string())
    }

    /// For people, and whether it is bad news. Nothing if it is not understood.
    pub(super) fn words(&self) -> Option<(String, bool)> {
        let moved: Announced = serde_json::from_slice(&self.0).ok()?;
        let Announced { stage, dependency, from, to, cause } = moved;
        let cause = cause.map(|cause| format!(", because {cause}")).unwrap_or_default();
        let text = format!("breaker of {dependency} ({stage}): {from} -> {to}{cause}");
        Some((crate::cli::timeline::clean(&text, MAX_CHARS), to == "open"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_actors::{dependency::announcer::BreakerMoved, policy::breaker::BreakerState};
    use throughline_schemas::{StageName, Timestamp};

    use super::*;

    #[test]
    fn what_the_announcer_says_is_understood() {
        let moved = BreakerMoved {
            stage: StageName::Generation,
            dependency: "openai".to_owned(),
            from: BreakerState::Closed,
            to: BreakerState::Open,
            at: Timestamp::from_unix_ms(0),
            class: Some("server"),
            cause: Some("the provider failed: \u{1b}[31mdown".to_owned()),
        };
        let heard = Moved(serde_json::to_vec(&moved).unwrap().into());
        let (words, is_bad) = heard.words().unwrap();
        let told = "breaker of openai (generation): closed -> open, because the provider failed: ";
        assert!(is_bad && words.starts_with(told) && !words.contains('\u{1b}'), "{words}");
        let earlier = Moved(Bytes::from_static(
            br#"{"stage":"input","dependency":"database","from":"closed","to":"open","at":"2026-01-01T00:00:00Z"}"#,
        ));
        assert_eq!(earlier.words(), Some(("breaker of database (input): closed -> open".to_owned(), true)));
        assert!(heard.json().unwrap().contains("\"type\":\"breaker_moved\""));
        let noise = Moved(Bytes::from_static(b"\x1b[31m"));
        assert!(noise.words().is_none() && noise.json().is_none());
    }
}
