//! Sending one message until the stream has it.

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, RequestErrorKind,
    client::Request,
    header,
    jetstream::{self, ErrorCode, context::GetStreamErrorKind},
};
use serde::Deserialize;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::Namespace;

use super::message::Message;
use crate::bus::nats::NatsBus;

/// How often one message is sent before the bus counts as unavailable.
const ATTEMPTS: usize = 4;
/// Waits between the attempts: a server that is restarted is back by then.
const DELAYS: [Duration; ATTEMPTS - 1] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];

/// What the stream says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Where it is stored; of a duplicate, where the first one is, if that is known.
    pub(super) sequence: Option<u64>,
    /// The stream has had it before; nothing was stored.
    pub(super) duplicate: bool,
}

/// Sends input to the event stream of a namespace.
#[derive(Clone)]
pub(super) struct Sender {
    bus: NatsBus,
    client: Client,
    ns: Namespace,
    stream: String,
    timeout: Duration,
}

impl Sender {
    /// `timeout` limits one attempt.
    pub(super) fn new(bus: &NatsBus, timeout: Duration) -> Self {
        Self {
            bus: bus.clone(),
            client: bus.client().clone(),
            ns: bus.namespace().clone(),
            stream: bus.names().events().to_owned(),
            timeout,
        }
    }

    /// Returns when the stream has the message. Sending it again is harmless: by its id the stream keeps one of it, and
    /// after the stream's window the input stage finds the workflow known.
    pub(super) async fn send(&self, message: &Message) -> Result<Sent, BusError> {
        let mut delays = DELAYS.into_iter();
        let mut is_first = true;
        loop {
            let error = match self.attempt(message).await? {
                // What an attempt without an answer stored is no duplicate of somebody else's.
                Ok(sent) => return Ok(Sent { duplicate: sent.duplicate && is_first, ..sent }),
                Err(error) => error,
            };
            is_first = false;
            let Some(delay) = delays.next() else { return Err(error) };
            tokio::time::sleep(delay).await;
        }
    }

    /// The inner error may be gone at the next attempt.
    async fn attempt(&self, message: &Message) -> Result<Result<Sent, BusError>, BusError> {
        let subject = message.subject.live(&self.ns);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message.id.as_str());
        headers.insert("Content-Type", "application/cloudevents+json");
        headers.insert("traceparent", message.traceparent.as_str());
        let request = Request::new().payload(message.body.clone()).headers(headers).timeout(None);
        let asked = self.bus.unless_forbidden(&subject, self.client.send_request(subject.clone(), request));
        // Our own timer: the client's does not cover the wait for its queue while the connection is down.
        let Ok(answer) = tokio::time::timeout(self.timeout, asked).await else {
            return Ok(Err(unavailable(&subject, None)));
        };
        let answer = match answer? {
            Ok(answer) => answer,
            Err(error) => {
                return match error.kind() {
                    RequestErrorKind::MaxPayloadExceeded => {
                        Err(BusError::TooLarge { bytes: message.body.len() })
                    }
                    RequestErrorKind::NoResponders if self.stream_is_missing().await => {
                        Err(BusError::NotSetUp(format!("the stream {} does not exist", self.stream)))
                    }
                    RequestErrorKind::NoResponders
                    | RequestErrorKind::TimedOut
                    | RequestErrorKind::InvalidSubject
                    | RequestErrorKind::Other => Ok(Err(unavailable(&subject, Some(error.into())))),
                };
            }
        };
        match Ack::read(&answer.payload) {
            Ack::Stored { sequence, duplicate } => Ok(Ok(Sent { sequence: Some(sequence), duplicate })),
            Ack::Full(what) => Err(BusError::Full(what)),
            Ack::TooLarge => Err(BusError::TooLarge { bytes: message.body.len() }),
            Ack::Other(what) => Ok(Err(unavailable(&subject, Some(what.into())))),
        }
    }

    fn jetstream(&self) -> jetstream::Context {
        jetstream::ContextBuilder::new().timeout(self.timeout).build(self.client.clone())
    }

    async fn stream_is_missing(&self) -> bool {
        match self.jetstream().get_stream(&self.stream).await {
            Ok(_) => false,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(told) => told.error_code() == ErrorCode::STREAM_NOT_FOUND,
                GetStreamErrorKind::EmptyName
                | GetStreamErrorKind::Request
                | GetStreamErrorKind::InvalidStreamName => false,
            },
        }
    }
}

fn unavailable(subject: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> BusError {
    BusError::Unavailable { context: format!("publishing on {subject}"), source }
}

/// The stream's answer.
#[derive(Debug, PartialEq, Eq)]
enum Ack {
    Stored { sequence: u64, duplicate: bool },
    Full(String),
    TooLarge,
    Other(String),
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
        #[derive(Deserialize)]
        struct ApiError {
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        match serde_json::from_slice::<Answer>(payload) {
            Ok(Answer { error: None, seq, duplicate }) => Self::Stored { sequence: seq, duplicate },
            Ok(Answer { error: Some(error), .. }) => match error.err_code {
                // Out of resources, of the account's storage, or of the stream's own limits.
                10_023 | 10_028 | 10_047 | 10_077 => Self::Full(error.description),
                10_054 => Self::TooLarge,
                _ => Self::Other(error.description),
            },
            Err(error) => Self::Other(format!("unreadable answer: {error}")),
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
                Ack::Full("maximum bytes exceeded".to_owned()),
            ),
        ];
        for (payload, expected) in cases {
            assert_eq!(Ack::read(payload.as_bytes()), expected, "{payload}");
        }
        for odd in ["", "null", r#"{"error":{"err_code":10158}}"#] {
            assert!(matches!(Ack::read(odd.as_bytes()), Ack::Other(_)), "{odd}");
        }
    }
}
