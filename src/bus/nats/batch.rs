//! Many stored messages of the event log, or of another stream, with one request.
//!
//! Any replica may answer, also one that is a little behind: a reader that must not miss a message asks the leader what
//! comes behind the last one (`stream_api.rs`). A message whose headers cannot be read cuts the connection, as everywhere.

use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use throughline_actors::ports::bus::BusError;

use super::{
    Core, StoredEvent,
    error::{unavailable, unavailable_because},
    reader,
};

/// Bytes of the messages that one request is answered with, at most; of a larger message one alone.
const MAX_BYTES: usize = 8 << 20;
/// Takes every message of a stream. Any other filter, although all match it, is matched by the server against the subjects
/// of a block of its file, thousands, for each message.
pub(super) const ALL: &str = ">";
/// How many more there are, behind this message.
const LEFT: &str = "Nats-Num-Pending";
/// Behind the last message of an answer.
const END_OF_BATCH: u16 = 204;
/// What is read, in the words of an error.
const WHAT: &str = "reading stored messages";

/// The answer to one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// In the order of the stream, with a body that is kept elsewhere left as its reference.
    pub(super) messages: Vec<StoredEvent>,
    /// How many more there are behind the last of them.
    pub(super) left: u64,
}

/// The first messages of the event log on these subjects from a sequence on, at most so many.
pub(super) async fn messages_from(
    core: &Core,
    sequence: u64,
    filter: &str,
    most: u64,
) -> Result<Batch, BusError> {
    messages_of(core, core.names.events(), sequence, filter, most).await
}

/// The same of another stream.
pub(super) async fn messages_of(
    core: &Core,
    stream: &str,
    sequence: u64,
    filter: &str,
    most: u64,
) -> Result<Batch, BusError> {
    let client = &core.connection.client;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| unavailable_because(WHAT, error);
    let reply = Subject::from(client.new_inbox());
    let mut generation = core.connection.generation();
    let mut complaints = core.connection.complaints();
    let mut answers = client.subscribe(reply.clone()).await.map_err(|error| failed(error.into()))?;
    let address = format!("$JS.API.DIRECT.GET.{stream}");
    let quoted = format!("\"{address}\"");
    let request = json!({"seq": sequence, "next_by_subj": filter, "batch": most, "max_bytes": MAX_BYTES});
    let body = Bytes::from(request.to_string());
    let sent = client.publish_with_reply(address, reply, body);
    sent.await.map_err(|error| failed(error.into()))?;
    tokio::select! {
        biased;
        batch = collect(core, &mut answers) => batch,
        words = complaints.forbidden(&quoted) => Err(BusError::Forbidden(words)),
        // What was on its way was lost with the connection.
        _ = generation.changed() => Err(unavailable(WHAT)),
    }
}

async fn collect(core: &Core, answers: &mut Subscriber) -> Result<Batch, BusError> {
    let mut batch = Batch::default();
    loop {
        let answer = tokio::time::timeout(core.settings.request_timeout, answers.next()).await;
        let answer = answer.ok().flatten().ok_or_else(|| unavailable(WHAT))?;
        let left = left(&answer);
        let said = answer.status.map(|status| (status, answer.description.clone().unwrap_or_default()));
        // A publisher may have put a status into a message's headers; only a message has a place in the stream.
        if let Some(message) = reader::of_batch(answer) {
            batch.messages.push(message);
            batch.left = left.unwrap_or_default();
            continue;
        }
        return match said {
            Some((status, _)) if status.as_u16() == END_OF_BATCH => {
                batch.left = left.unwrap_or(batch.left);
                Ok(batch)
            }
            Some((StatusCode::NOT_FOUND, _)) => Ok(batch),
            Some((status, words)) => Err(unavailable(format!("{WHAT}: status {status} {words}"))),
            None => Err(unavailable(WHAT)),
        };
    }
}

fn left(answer: &Message) -> Option<u64> {
    answer.headers.as_ref()?.get_last(LEFT)?.as_str().parse().ok()
}
