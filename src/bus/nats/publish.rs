//! Publishing once: the message id de-duplicates within the stream's window, create-if-absent on the exact subject
//! for as long as the event is retained.

use std::time::Duration;

use async_nats::{HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;
use throughline_actors::ports::bus::{BusError, Published};
use throughline_schemas::{Event, encode, encode_reference};
use tokio::time::Instant;

use super::{
    Core,
    error::{unavailable, unavailable_because},
    foreign::{self, Standing},
    headers, large_bodies,
    requests::{self, ApiError, NoAnswer},
};

/// How often one publish is sent before it is reported as unavailable.
const ATTEMPTS: usize = 4;
/// Waits between the attempts. After them the caller's own retry policy takes over.
const DELAYS: [Duration; ATTEMPTS - 1] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1)];
/// No attempt begins later than this after the first.
const LIMIT: Duration = Duration::from_secs(12);
/// How often one publish looks at what stands on its subject instead.
const MOST_LOOKS: usize = 16;
/// How long the server may take to report on the stream that did not take a message.
const STREAM_INFO_LIMIT: Duration = Duration::from_secs(1);
/// The stream is at one of its own limits.
const STORE_FAILED: u64 = 10_077;
/// De-duplicates within the stream's window.
pub(super) const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Structured-mode `CloudEvents`.
const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Publishes an event on its own subject; a large one by reference.
pub(super) async fn event(core: &Core, event: &Event) -> Result<Published, BusError> {
    let body = Bytes::from(encode(event)?);
    let whole_bytes = body.len();
    let traceparent = event.meta.traceparent.to_string();
    let is_large = body.len() > large_bodies::SMALL_BYTES && {
        let max_payload = core.connection.client.server_info().max_payload;
        body.len() > large_bodies::inline_bytes(event.event_type(), max_payload)
    };
    let stored = Instant::now();
    let whole = body.clone();
    let object = if is_large { Some(core.bodies.put(core, whole.clone()).await?) } else { None };
    let body = match &object {
        Some(name) => Bytes::from(encode_reference(event, &core.bodies.uri(name))?),
        None => body,
    };
    let message = Outgoing {
        stream: core.names.events(),
        subject: event.subject().live(&core.settings.namespace),
        message_id: &event.meta.id,
        expected: Expected::Nothing,
        body,
    };
    let published = publish(core, &message, |map| {
        map.insert("Content-Type", CONTENT_TYPE);
        map.insert("traceparent", traceparent.as_str());
        if let Some(name) = &object {
            map.insert(headers::BODY, name.as_str());
            map.insert(headers::BODY_BYTES, whole_bytes.to_string().as_str());
        }
    })
    .await?;
    if is_large && large_bodies::may_be_gone(stored) {
        core.bodies.put(core, whole).await?;
    }
    Ok(published)
}

/// What a subject must have for a message to be stored on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// No message.
    Nothing,
    /// A last message with this sequence.
    Last(u64),
    /// It does not matter.
    Anything,
}

/// A message for a stream.
pub(super) struct Outgoing<'a> {
    pub(super) stream: &'a str,
    pub(super) subject: String,
    pub(super) message_id: &'a str,
    pub(super) expected: Expected,
    pub(super) body: Bytes,
}

/// Sends a message until the stream has it or has had it.
pub(super) async fn publish(
    core: &Core,
    message: &Outgoing<'_>,
    fill: impl Fn(&mut HeaderMap),
) -> Result<Published, BusError> {
    let mut waits = DELAYS.into_iter();
    let deadline = Instant::now() + LIMIT;
    let mut use_message_id = true;
    let mut looks = 0..MOST_LOOKS;
    loop {
        let mut map = HeaderMap::new();
        if use_message_id {
            headers::append(&mut map, MESSAGE_ID, message.message_id);
        }
        let last = match message.expected {
            Expected::Nothing => Some(0),
            Expected::Last(sequence) => Some(sequence),
            Expected::Anything => None,
        };
        if let Some(last) = last {
            map.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string().as_str());
        }
        fill(&mut map);
        let answer = requests::request(
            core,
            message.subject.as_str().into(),
            Some(map),
            message.body.clone(),
            core.settings.request_timeout,
        )
        .await;
        let failure = match answer {
            Ok(answer) => match verdict(&answer.payload) {
                // Ids are compared within the whole stream, and anybody who may publish input may choose one; and on a
                // subject may stand what the server itself was made to write there. Only our event proves that it is there.
                Verdict::Stored(Published::Already) if message.expected == Expected::Nothing => {
                    match foreign::standing(core, message.stream, &message.subject).await? {
                        Standing::Event => return Ok(Published::Already),
                        Standing::Nothing if foreign::is_among(core, &message.subject).await? => {
                            return Ok(Published::Already);
                        }
                        Standing::Nothing => use_message_id = false,
                        Standing::Foreign(sequence) => {
                            foreign::take_out(core, &message.subject, sequence).await?;
                        }
                    }
                    if looks.next().is_some() {
                        continue;
                    }
                    unavailable(context(message))
                }
                Verdict::Stored(published) => return Ok(published),
                Verdict::Full(error) => return Err(BusError::Full(no_room(message.stream, &error))),
                Verdict::TooLarge => return Err(BusError::TooLarge { bytes: message.body.len() }),
                Verdict::Again(source) => unavailable_because(context(message), source),
            },
            Err(NoAnswer::TooLarge) => return Err(BusError::TooLarge { bytes: message.body.len() }),
            Err(NoAnswer::TimedOut) => not_stored(core, message).await,
            Err(no_answer) => {
                if matches!(no_answer, NoAnswer::NoResponders) && waits.len() > 0 {
                    unavailable(context(message))
                } else {
                    requests::explain(core, no_answer, message.stream, context(message)).await
                }
            }
        };
        let Some(wait) = waits.next() else { return Err(failure) };
        if matches!(failure, BusError::NotSetUp(_) | BusError::Forbidden(_))
            || Instant::now() + wait >= deadline
        {
            return Err(failure);
        }
        tokio::time::sleep(wait).await;
    }
}

fn context(message: &Outgoing<'_>) -> String {
    format!("publishing on {}", message.subject)
}

/// What it means that a publish was not answered. A nats-server that could not write to its disk once answers no publish
/// on that stream until it is restarted, while it answers everything else.
async fn not_stored(core: &Core, message: &Outgoing<'_>) -> BusError {
    let context = context(message);
    let limit = core.settings.request_timeout.min(STREAM_INFO_LIMIT);
    match requests::filling(core, message.stream, limit).await {
        Ok(_) => unavailable(format!(
            "{context}: the server answers, but stores nothing in the stream {}; if it stays so, its disk is or was full: \
             make room, read the server's log, and restart it",
            message.stream
        )),
        Err(BusError::NotSetUp(what)) => BusError::NotSetUp(what),
        Err(_) => unavailable(context),
    }
}

/// Who has no room, in the server's words, and what to do.
fn no_room(stream: &str, error: &ApiError) -> String {
    match error.err_code {
        STORE_FAILED => format!(
            "the stream {stream} says {error}; raise nats.max_bytes_mib and run `throughline setup`, or wait until old \
             events expire"
        ),
        _ => format!(
            "the server says {error}: the storage of its account or of the server itself is used up; raise its limits \
             (max_file_store), or make room"
        ),
    }
}

/// What an answer to a publish means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stored(Published),
    Full(ApiError),
    TooLarge,
    Again(ApiError),
}

fn verdict(payload: &[u8]) -> Verdict {
    #[derive(Deserialize)]
    struct Ack {
        /// Where it is; an acknowledgement without it is none.
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
        #[serde(default)]
        error: Option<ApiError>,
    }
    let error = match serde_json::from_slice::<Ack>(payload) {
        Ok(Ack { error: Some(error), .. }) => error,
        Ok(Ack { seq: 1.., duplicate, .. }) => {
            return Verdict::Stored(if duplicate { Published::Already } else { Published::New });
        }
        Ok(Ack { .. }) => ApiError { description: "an empty answer".to_owned(), ..ApiError::default() },
        Err(error) => ApiError { description: format!("unreadable answer: {error}"), ..ApiError::default() },
    };
    match error.err_code {
        // Wrong last sequence: the subject has a message already.
        10_071 => Verdict::Stored(Published::Already),
        _ => match refusal(error) {
            Refusal::Full(error) => Verdict::Full(error),
            Refusal::TooLarge => Verdict::TooLarge,
            Refusal::Again(error) => Verdict::Again(error),
        },
    }
}

/// Why the server did not store a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full(ApiError),
    TooLarge,
    /// It may at the next attempt.
    Again(ApiError),
}

pub(super) fn refusal(error: ApiError) -> Refusal {
    match error.err_code {
        // Insufficient resources, memory or storage of the account used up, store failed (which is what reaching
        // max_bytes or max_msgs with discard new is called).
        10_023 | 10_028 | 10_047 | STORE_FAILED => Refusal::Full(error),
        10_054 => Refusal::TooLarge,
        // Everything else may pass, notably 10158 and 10164 of clusters: a publish of this id or subject is under
        // way, and whether it will be stored is not known yet. The codes are an open set of numbers.
        _ => Refusal::Again(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_real_server_are_understood() {
        let cases: [(&str, Verdict); 4] = [
            (r#"{"stream":"t_EVENTS","seq":7}"#, Verdict::Stored(Published::New)),
            (r#"{"stream":"t_EVENTS","seq":7,"duplicate":true}"#, Verdict::Stored(Published::Already)),
            (
                r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"t_EVENTS","seq":0}"#,
                Verdict::Stored(Published::Already),
            ),
            (
                r#"{"error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream":"x","seq":0}"#,
                Verdict::TooLarge,
            ),
        ];
        for (payload, expected) in cases {
            assert_eq!(verdict(payload.as_bytes()), expected, "{payload}");
        }
        let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"x","seq":0}"#;
        assert!(matches!(verdict(full.as_bytes()), Verdict::Full(_)));
        for odd in ["", "null", "[]", r#"{"error":{"err_code":10158}}"#] {
            let is_success = matches!(verdict(odd.as_bytes()), Verdict::Stored(_));
            assert!(!is_success, "{odd}");
        }
    }
}
