//! Publishing what a user says, until the stream has it.

use std::time::Duration;

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::Subject;

use super::{
    Core,
    error::{unavailable, unavailable_because},
    publish::{self, Refusal},
    requests::{self, ApiError, NoAnswer},
};

/// How often one message is sent before the bus counts as unavailable.
const ATTEMPTS: usize = 4;
/// Waits between the attempts: a server that is restarted is back by then.
const DELAYS: [Duration; ATTEMPTS - 1] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// A `user_input_received` event, encoded.
#[derive(Debug, Clone)]
pub struct InputMessage {
    /// Where it is published.
    pub subject: Subject,
    /// The stream keeps one message with this id, within its window.
    pub id: String,
    /// Begins the workflow's trace.
    pub traceparent: String,
    /// The event.
    pub body: Bytes,
}

/// What the stream says of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedInput {
    /// Where it is stored; of a duplicate, where the first one is, if that is known.
    pub sequence: Option<u64>,
    /// The stream had it before; nothing was stored.
    pub duplicate: bool,
}

/// Returns when the stream has the message. Sending it again is harmless: by its id the stream keeps one of it, and
/// after the stream's window the input stage finds the workflow known.
pub(super) async fn input(core: &Core, message: &InputMessage) -> Result<PublishedInput, BusError> {
    let mut delays = DELAYS.into_iter();
    let mut is_first = true;
    loop {
        let error = match attempt(core, message).await? {
            // What an attempt without an answer stored is no duplicate of somebody else's.
            Ok(published) => {
                return Ok(PublishedInput { duplicate: published.duplicate && is_first, ..published });
            }
            Err(error) => error,
        };
        is_first = false;
        let Some(delay) = delays.next() else { return Err(error) };
        tokio::time::sleep(delay).await;
    }
}

/// The inner error may be gone at the next attempt.
async fn attempt(core: &Core, message: &InputMessage) -> Result<Result<PublishedInput, BusError>, BusError> {
    let subject = message.subject.live(&core.settings.namespace);
    let context = || format!("publishing on {subject}");
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_MESSAGE_ID, message.id.as_str());
    headers.insert("Content-Type", "application/cloudevents+json");
    headers.insert("traceparent", message.traceparent.as_str());
    let limit = core.settings.request_timeout;
    let answer =
        requests::request(core, subject.as_str().into(), Some(headers), message.body.clone(), limit).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(NoAnswer::TooLarge) => return Err(BusError::TooLarge { bytes: message.body.len() }),
        Err(no_answer) => {
            let stream = core.names.events();
            return match requests::explain(core, no_answer, stream, context()).await {
                error @ BusError::Unavailable { .. } => Ok(Err(error)),
                error @ (BusError::NotSetUp(_)
                | BusError::Forbidden(_)
                | BusError::Full(_)
                | BusError::BodiesFull(_)
                | BusError::TooLarge { .. }
                | BusError::Encode(_)) => Err(error),
            };
        }
    };
    match Ack::read(&answer.payload) {
        Ack::Stored { sequence, duplicate } => Ok(Ok(PublishedInput { sequence: Some(sequence), duplicate })),
        Ack::Refused(Refusal::Full(error)) => Err(BusError::Full(error.description)),
        Ack::Refused(Refusal::TooLarge) => Err(BusError::TooLarge { bytes: message.body.len() }),
        Ack::Refused(Refusal::Again(error)) => Ok(Err(unavailable_because(context(), error))),
        Ack::Unreadable(error) => Ok(Err(unavailable(format!("{}: unreadable answer: {error}", context())))),
    }
}

/// The stream's answer.
#[derive(Debug, PartialEq, Eq)]
enum Ack {
    Stored { sequence: u64, duplicate: bool },
    Refused(Refusal),
    Unreadable(String),
}

impl Ack {
    fn read(payload: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            seq: u64,
            #[serde(default)]
            duplicate: bool,
            error: Option<ApiError>,
        }
        match serde_json::from_slice::<Answer>(payload) {
            Ok(Answer { error: None, seq, duplicate }) => Self::Stored { sequence: seq, duplicate },
            Ok(Answer { error: Some(error), .. }) => Self::Refused(publish::refusal(error)),
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_real_server_are_understood() {
        let cases = [
            (r#"{"stream":"t","seq":7}"#, Ack::Stored { sequence: 7, duplicate: false }),
            (r#"{"stream":"t","seq":7,"duplicate":true}"#, Ack::Stored { sequence: 7, duplicate: true }),
            (
                r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"t","seq":0}"#,
                Ack::Refused(Refusal::Full(ApiError {
                    code: 503,
                    err_code: 10_077,
                    description: "maximum bytes exceeded".to_owned(),
                })),
            ),
        ];
        for (payload, expected) in cases {
            assert_eq!(Ack::read(payload.as_bytes()), expected, "{payload}");
        }
        let again = Ack::read(br#"{"error":{"err_code":10158}}"#);
        assert!(matches!(again, Ack::Refused(Refusal::Again(_))), "{again:?}");
        for odd in ["", "null"] {
            assert!(matches!(Ack::read(odd.as_bytes()), Ack::Unreadable(_)), "{odd}");
        }
    }
}
