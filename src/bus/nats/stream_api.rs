//! Stored messages and consumers as the server's API has them: always from the leader, and readable whatever a message's
//! headers are.

use async_nats::StatusCode;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::StageName;

use super::{
    Core, Names, batch,
    error::{unavailable, unavailable_because},
    requests::{self, ApiError, NoAnswer},
};

/// What is being done, in the words of an error.
const ASKING: &str = "asking the server's API";

/// The first message of these subjects from a sequence on, as the leader of the stream has it.
pub(super) async fn message_from(
    core: &Core,
    sequence: u64,
    filter: &str,
) -> Result<Option<RawMessage>, BusError> {
    message(core, next_on(sequence, filter)).await
}

/// The first message of a stream from a sequence on, whatever it is, as the leader of the stream has it.
pub(super) async fn any_from(
    core: &Core,
    stream: &str,
    sequence: u64,
) -> Result<Option<RawMessage>, BusError> {
    message_in(core, stream, next_on(sequence, batch::ALL)).await
}

fn next_on(sequence: u64, filter: &str) -> String {
    format!(r#"{{"seq":{sequence},"next_by_subj":"{filter}"}}"#)
}

/// Takes a message out of the event log.
pub(super) async fn delete(core: &Core, sequence: u64) -> Result<(), BusError> {
    let address = format!("$JS.API.STREAM.MSG.DELETE.{}", core.names.events());
    let request = format!(r#"{{"seq":{sequence},"no_erase":true}}"#);
    ask::<IgnoredAny>(core, address, request.into()).await.map(drop)
}

/// The message of the event log that a request of the API names.
pub(super) async fn message(core: &Core, request: String) -> Result<Option<RawMessage>, BusError> {
    message_in(core, core.names.events(), request).await
}

/// The same of another stream.
pub(super) async fn message_in(
    core: &Core,
    stream: &str,
    request: String,
) -> Result<Option<RawMessage>, BusError> {
    /// No message found.
    const NO_MESSAGE: u64 = 10_037;
    #[derive(Deserialize)]
    struct Found {
        message: Option<RawMessage>,
        error: Option<ApiError>,
    }
    let what = "reading a stored message";
    let address = format!("$JS.API.STREAM.MSG.GET.{stream}");
    let limit = core.settings.request_timeout;
    let answer = requests::request(core, address.into(), None, request.into(), limit).await;
    let answer = answer.map_err(|_| unavailable(what))?;
    match serde_json::from_slice(&answer.payload) {
        Ok(Found { message: Some(message), .. }) => Ok(Some(message)),
        Ok(Found { error: Some(error), .. }) if error.err_code == NO_MESSAGE => Ok(None),
        Ok(Found { error: Some(error), .. }) => Err(unavailable_because(what, error)),
        Ok(Found { message: None, error: None }) => Err(unavailable(what)),
        Err(error) => Err(unavailable_because(what, error)),
    }
}

/// Asks the API; a refusal is an error.
pub(super) async fn ask<T: for<'a> Deserialize<'a>>(
    core: &Core,
    subject: String,
    body: Bytes,
) -> Result<T, BusError> {
    let asked = answer(core, subject, body).await?;
    asked.map_err(|refusal| unavailable_because(ASKING, refusal))
}

/// Asks the API; what it refuses is distinguished from what went wrong on the way.
pub(super) async fn answer<T: for<'a> Deserialize<'a>>(
    core: &Core,
    subject: String,
    body: Bytes,
) -> Result<Result<T, ApiError>, BusError> {
    #[derive(Deserialize)]
    struct Refusal {
        error: ApiError,
    }
    let answer = requests::request(core, subject.into(), None, body, core.settings.request_timeout).await;
    let answer = answer.map_err(|no_answer| match no_answer {
        NoAnswer::Forbidden(words) => BusError::Forbidden(words),
        NoAnswer::Client(source) => unavailable_because(ASKING, source),
        NoAnswer::TimedOut | NoAnswer::Reconnected | NoAnswer::NoResponders | NoAnswer::TooLarge => {
            unavailable(ASKING)
        }
    })?;
    if let Ok(Refusal { error }) = serde_json::from_slice(&answer.payload) {
        return Ok(Err(error));
    }
    serde_json::from_slice(&answer.payload).map(Ok).map_err(|error| unavailable_because(ASKING, error))
}

/// Where a stage's consumer stands.
#[derive(Deserialize)]
pub(super) struct ConsumerState {
    pub(super) delivered: Sequences,
    pub(super) ack_floor: Sequences,
    pub(super) num_ack_pending: u64,
    /// Stored and not given out yet.
    pub(super) num_pending: u64,
}

#[derive(Deserialize)]
pub(super) struct Sequences {
    pub(super) stream_seq: u64,
}

impl ConsumerState {
    pub(super) async fn ask(core: &Core, stage: StageName) -> Result<Self, BusError> {
        let (stream, consumer) = (core.names.events(), Names::consumer(stage));
        ask(core, format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}"), Bytes::new()).await
    }
}

/// A stored message as the server's API has it.
#[derive(Deserialize)]
pub(super) struct RawMessage {
    pub(super) subject: String,
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) hdrs: String,
    #[serde(default)]
    pub(super) data: String,
    pub(super) time: String,
}

/// The headers of a message; `None` if async-nats 0.51 cannot read them.
pub(super) fn headers_of(message: &RawMessage) -> Option<Vec<(String, String)>> {
    let raw = decode_base64(&message.hdrs)?;
    if raw.is_empty() { Some(Vec::new()) } else { read_headers(&raw) }
}

fn read_headers(raw: &[u8]) -> Option<Vec<(String, String)>> {
    let mut lines = std::str::from_utf8(raw).ok()?.lines().peekable();
    let version = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"))?;
    let status = version.trim().split(' ').next().unwrap_or_default();
    if !status.is_empty() && status.parse::<StatusCode>().is_err() {
        return None;
    }
    let mut headers = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        if !name.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let mut value = value.trim().to_owned();
        while let Some(folded) = lines.next_if(|next| next.starts_with(char::is_whitespace)) {
            value.push(' ');
            value.push_str(folded.trim());
        }
        headers.push((name.to_owned(), value));
    }
    Some(headers)
}

/// Standard base64 with padding, which is how the API wraps bytes.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_specification() {
        for (text, bytes) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmFy", "foobar")]
        {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode_base64("+/8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode_base64("Zm9v\n"), None);
    }

    #[test]
    fn what_the_client_reads_is_readable_and_nothing_else() {
        for good in
            ["NATS/1.0\r\n\r\n", "NATS/1.0\r\nA: b\r\n more\r\nc:\r\n\r\n", "NATS/1.0 100 Idle\r\n\r\n"]
        {
            assert!(read_headers(good.as_bytes()).is_some(), "{good:?}");
        }
        let folded = read_headers(b"NATS/1.0\r\nA: b\r\n more\r\nc:\r\n\r\n").unwrap_or_default();
        let plain: Vec<_> = folded.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(plain, [("A", "b more"), ("c", "")]);
        let bad = ["", "HTTP/1.1\r\n\r\n", "NATS/1.0\r\nMy Header: x\r\n\r\n", "NATS/1.0\r\nnone\r\n\r\n"];
        for bad in bad {
            assert!(read_headers(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(read_headers(b"NATS/1.0\r\nA: \xff\r\n\r\n").is_none());
        assert!(read_headers("NATS/1.0\r\né: x\r\n\r\n".as_bytes()).is_none());
        assert!(read_headers(b"NATS/1.0 x\r\n\r\n").is_none());
    }
}
