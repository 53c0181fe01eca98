//! Dead letters: the original bytes and headers, and what was wrong.

use async_nats::HeaderMap;
use bytes::Bytes;
use throughline_actors::ports::bus::{BusError, DeadLetter, Delivery};
use throughline_schemas::{MAJOR, Namespace, StageName, dead_letter};

use super::{
    Core, Names, headers,
    publish::{Expected, Outgoing, publish},
};

/// Longest explanation in a header, in characters.
const MAX_ERROR_CHARS: usize = 2_000;
/// What the protocol adds to a header, in bytes.
const HEADER_OVERHEAD_BYTES: usize = 4;
/// What is kept of a body that there is no room for, in bytes: enough to see what it is.
const CUT_BYTES: usize = 64 * 1024;
/// Left free for the message id, where it happened, the name of a body and what the server adds, in bytes.
const HEADROOM_BYTES: usize = 2048;

/// Stores a dead letter. Headers that the server or a reader would obey (`Nats-…`, `Throughline-…`) are kept as
/// `Original-…`. A body that does not fit into one message is kept in the object store and named by a header; where that
/// has no room, the letter has its beginning.
pub(super) async fn dead_letter(
    core: &Core,
    delivery: &Delivery,
    letter: &DeadLetter,
) -> Result<(), BusError> {
    let fill = |map: &mut HeaderMap| {
        let error: String = letter.error.chars().take(MAX_ERROR_CHARS).collect();
        headers::append(map, dead_letter::STAGE, letter.stage.as_str());
        headers::append(map, dead_letter::CODE, letter.code.as_str());
        headers::append(map, dead_letter::ERROR, &headers::one_line(&error));
        headers::append(map, dead_letter::ATTEMPTS, &delivery.delivered.to_string());
        headers::append(map, dead_letter::SUBJECT, &delivery.subject);
        headers::append(map, dead_letter::SEQUENCE, &delivery.sequence.to_string());
        headers::append(map, dead_letter::TIME, &letter.at.to_string());
        for (name, value) in &delivery.headers {
            headers::append(map, &headers::kept_name(name), value);
        }
    };
    let ns = &core.settings.namespace;
    let subject = match &letter.subject {
        Some(subject) => subject.dead(ns),
        None => unaddressed(ns, letter.stage, delivery.sequence),
    };
    store(core, subject, letter.stage, delivery.sequence, delivery.body.clone(), fill).await
}

/// Where a message is filed that names no workflow: under its sequence.
pub(super) fn unaddressed(ns: &Namespace, stage: StageName, sequence: u64) -> String {
    format!("{ns}.dead.v{MAJOR}.{}.unknown.{sequence}", stage.consumes())
}

/// Stores a dead letter, once for each stage and sequence.
pub(super) async fn store(
    core: &Core,
    subject: String,
    stage: StageName,
    sequence: u64,
    body: Bytes,
    fill: impl Fn(&mut HeaderMap),
) -> Result<(), BusError> {
    let mut filled = HeaderMap::new();
    fill(&mut filled);
    let header_bytes: usize = headers::pairs(Some(&filled))
        .iter()
        .map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_BYTES)
        .sum();
    let fits = body.len() + header_bytes + HEADROOM_BYTES <= core.connection.facts().max_payload;
    let whole = body.len();
    let (body, object) = if fits {
        (body, None)
    } else {
        match core.bodies.put(core, body.clone()).await {
            Ok(name) => (Bytes::new(), Some(name)),
            // What cannot be handled must not wait for room that other work needs, with a slot in hand.
            Err(BusError::BodiesFull(_) | BusError::TooLarge { .. }) => {
                (body.slice(..whole.min(CUT_BYTES)), None)
            }
            Err(error) => return Err(error),
        }
    };
    let is_cut = object.is_none() && body.len() < whole;
    let message_id = format!("dead.{stage}.{sequence}");
    let message = Outgoing {
        stream: core.names.dead(),
        subject,
        message_id: &message_id,
        // A letter that was sent again and failed again is a second letter of the same workflow.
        expected: Expected::Anything,
        body,
    };
    let sent = publish(core, &message, |map| {
        headers::append(map, dead_letter::STREAM, core.names.events());
        headers::append(map, dead_letter::CONSUMER, Names::consumer(stage));
        headers::append(map, dead_letter::WORKER, &core.settings.name);
        fill(map);
        if is_cut {
            headers::append(map, dead_letter::BODY_BYTES, &whole.to_string());
        }
        if let Some(name) = &object {
            map.insert(headers::BODY, name.as_str());
        }
    });
    sent.await.map(|_| ())
}
