//! Small requests to the server, each within the request timeout.

use std::time::Duration;

use async_nats::{HeaderMap, Message, RequestErrorKind, StatusCode, Subject, client::Request};
use bytes::Bytes;
use serde::Deserialize;
use throughline_actors::ports::bus::BusError;

use super::{
    Core,
    error::{unavailable, unavailable_because},
};

/// The server's words for what went wrong in its API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{description} (error {err_code})")]
pub(super) struct ApiError {
    /// HTTP-like class.
    #[serde(default)]
    pub(super) code: u16,
    /// Exactly what.
    #[serde(default)]
    pub(super) err_code: u64,
    /// In words.
    #[serde(default)]
    pub(super) description: String,
}

impl ApiError {
    /// HTTP's "not found", which the API uses for streams and consumers alike.
    const NOT_FOUND: u16 = 404;

    /// Whether the stream or consumer that was asked about does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == Self::NOT_FOUND
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// It was sent or not, and nothing came back in time.
    TimedOut,
    /// The connection was re-established meanwhile; what was sent before may be lost.
    Reconnected,
    /// There is no responder: no such stream, or `JetStream` is not up yet.
    NoResponders,
    /// This user may not ask that; the server's words.
    Forbidden(String),
    /// The message is larger than the server accepts.
    TooLarge,
    /// The client cannot send it at all.
    Client(async_nats::RequestError),
}

/// Sends a request and waits for its answer, for at most `limit`.
pub(super) async fn request(
    core: &Core,
    subject: Subject,
    headers: Option<HeaderMap>,
    payload: Bytes,
    limit: Duration,
) -> Result<Message, NoAnswer> {
    enum Stop {
        Client(async_nats::RequestError),
        Forbidden(String),
        Reconnected,
    }
    let mut request = Request::new().payload(payload).timeout(None);
    if let Some(headers) = headers {
        request = request.headers(headers);
    }
    let mut generation = core.connection.generation();
    let mut complaints = core.connection.complaints();
    let quoted = format!("\"{subject}\"");
    // One timer for all of it: the client's own would not cover the wait for its command queue.
    let answer = tokio::time::timeout(limit, async {
        tokio::select! {
            biased;
            answer = core.connection.client.send_request(subject, request) => answer.map_err(Stop::Client),
            words = complaints.forbidden(&quoted) => Err(Stop::Forbidden(words)),
            _ = generation.changed() => Err(Stop::Reconnected),
        }
    })
    .await;
    match answer {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(Stop::Reconnected)) => Err(NoAnswer::Reconnected),
        Ok(Err(Stop::Forbidden(words))) => Err(NoAnswer::Forbidden(words)),
        Ok(Err(Stop::Client(error))) => Err(match error.kind() {
            RequestErrorKind::TimedOut => NoAnswer::TimedOut,
            RequestErrorKind::NoResponders => NoAnswer::NoResponders,
            RequestErrorKind::MaxPayloadExceeded => NoAnswer::TooLarge,
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => NoAnswer::Client(error),
        }),
        Err(_) => Err(NoAnswer::TimedOut),
    }
}

/// Hands a message to the connection; what happens to it there is not known.
pub(super) async fn send(core: &Core, subject: Subject, payload: Bytes) -> Result<(), BusError> {
    let sent = core.connection.client.publish(subject, payload);
    match tokio::time::timeout(core.settings.request_timeout, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(unavailable_because("sending", source)),
        Err(_) => Err(unavailable("sending: there is no connection and its queue is full")),
    }
}

/// The last stored message of a subject, which may contain wildcards. Its headers say where and when.
pub(super) async fn last_of_subject(
    core: &Core,
    stream: &str,
    subject: &str,
) -> Result<Option<Message>, BusError> {
    let address = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
    direct_get(core, stream, address, Bytes::new(), subject).await
}

/// The stored message at a sequence. Its headers say on which subject and when.
pub(super) async fn message_at(
    core: &Core,
    stream: &str,
    sequence: u64,
) -> Result<Option<Message>, BusError> {
    let address = format!("$JS.API.DIRECT.GET.{stream}");
    let body = format!(r#"{{"seq":{sequence}}}"#);
    direct_get(core, stream, address, body.into(), &format!("message {sequence} of {stream}")).await
}

async fn direct_get(
    core: &Core,
    stream: &str,
    address: String,
    body: Bytes,
    what: &str,
) -> Result<Option<Message>, BusError> {
    let asked = request(core, address.into(), None, body, core.settings.request_timeout).await;
    let context = || format!("looking up {what}");
    match asked {
        Ok(message) => match message.status {
            None => Ok(Some(message)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(other) => Err(unavailable(format!(
                "{}: status {other} {}",
                context(),
                message.description.as_deref().unwrap_or_default()
            ))),
        },
        Err(no_answer) => Err(explain(core, no_answer, stream, context()).await),
    }
}

/// What the lack of an answer means for the caller.
pub(super) async fn explain(core: &Core, no_answer: NoAnswer, stream: &str, context: String) -> BusError {
    match no_answer {
        NoAnswer::TimedOut | NoAnswer::Reconnected => unavailable(context),
        NoAnswer::Forbidden(words) => BusError::Forbidden(words),
        NoAnswer::Client(source) => unavailable_because(context, source),
        NoAnswer::TooLarge => BusError::TooLarge { bytes: core.connection.facts().max_payload },
        NoAnswer::NoResponders => {
            if stream_is_missing(core, stream).await {
                BusError::NotSetUp(format!("the stream {stream} does not exist"))
            } else {
                unavailable(format!("{context}: the server has no JetStream at this moment"))
            }
        }
    }
}

/// Whether the server says that there is no such stream. No answer counts as no.
pub(super) async fn stream_is_missing(core: &Core, stream: &str) -> bool {
    is_missing(core, format!("$JS.API.STREAM.INFO.{stream}")).await
}

/// Whether the server says that there is no such consumer. No answer counts as no.
pub(super) async fn consumer_is_missing(core: &Core, stream: &str, consumer: &str) -> bool {
    is_missing(core, format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")).await
}

async fn is_missing(core: &Core, subject: String) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<ApiError>,
    }
    match request(core, subject.into(), None, Bytes::new(), core.settings.request_timeout).await {
        Ok(message) => serde_json::from_slice::<Answer>(&message.payload)
            .is_ok_and(|answer| answer.error.is_some_and(|error| error.is_not_found())),
        Err(_) => false,
    }
}

/// How full a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filling {
    /// Bytes in it.
    pub(super) bytes: u64,
    /// Bytes that it may hold; `None` if it has no limit of its own.
    pub(super) max_bytes: Option<u64>,
    /// It refuses what does not fit, instead of dropping what is oldest.
    pub(super) refuses: bool,
}

impl Filling {
    /// Whether it would refuse so many bytes more.
    pub(super) fn lacks_room_for(&self, bytes: u64) -> bool {
        self.refuses && self.max_bytes.is_some_and(|most| self.bytes.saturating_add(bytes) > most)
    }

    /// As in `31.9 of 32 MiB`.
    pub(super) fn in_words(&self) -> String {
        // Tenths are enough, and exact.
        let mib = |bytes: u64| {
            let tenths = bytes.saturating_mul(10) >> 20;
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        match self.max_bytes {
            Some(most) => format!("{} of {} MiB", mib(self.bytes), mib(most)),
            None => format!("{} MiB", mib(self.bytes)),
        }
    }
}

/// How full a stream is, by the server's word, within `limit`.
pub(super) async fn filling(core: &Core, stream: &str, limit: Duration) -> Result<Filling, BusError> {
    #[derive(Deserialize)]
    struct Answer {
        error: Option<ApiError>,
        config: Option<Config>,
        state: Option<State>,
    }
    #[derive(Deserialize)]
    struct Config {
        max_bytes: i64,
        #[serde(default)]
        discard: String,
    }
    #[derive(Deserialize)]
    struct State {
        bytes: u64,
    }
    let context = || format!("looking at the stream {stream}");
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let message = match request(core, subject.into(), None, Bytes::new(), limit).await {
        Ok(message) => message,
        Err(NoAnswer::Forbidden(words)) => return Err(BusError::Forbidden(words)),
        Err(NoAnswer::Client(source)) => return Err(unavailable_because(context(), source)),
        Err(NoAnswer::NoResponders) => {
            return Err(unavailable(format!("{}: the server has no JetStream at this moment", context())));
        }
        Err(NoAnswer::TimedOut | NoAnswer::Reconnected | NoAnswer::TooLarge) => {
            return Err(unavailable(context()));
        }
    };
    let answer: Answer =
        serde_json::from_slice(&message.payload).map_err(|error| unavailable_because(context(), error))?;
    match answer {
        Answer { error: Some(error), .. } if error.is_not_found() => {
            Err(BusError::NotSetUp(format!("the stream {stream} does not exist")))
        }
        Answer { error: Some(error), .. } => Err(unavailable_because(context(), error)),
        Answer { config: Some(config), state: Some(state), .. } => Ok(Filling {
            bytes: state.bytes,
            max_bytes: u64::try_from(config.max_bytes).ok().filter(|most| *most > 0),
            refuses: config.discard == "new",
        }),
        Answer { .. } => Err(unavailable(format!("{}: an empty answer", context()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_refuses_can_lack_room() {
        let full = Filling { bytes: 33_500_000, max_bytes: Some(32 << 20), refuses: true };
        assert!(full.lacks_room_for(65_536) && !full.lacks_room_for(1_000));
        assert!(!Filling { refuses: false, ..full.clone() }.lacks_room_for(65_536));
        assert!(!Filling { max_bytes: None, ..full.clone() }.lacks_room_for(u64::MAX));
        assert_eq!(full.in_words(), "31.9 of 32.0 MiB");
    }
}
