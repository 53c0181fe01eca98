//! Dead letters: the original bytes and headers, and what was wrong.

use async_nats::HeaderMap;
use bytes::Bytes;
use throughline_actors::ports::bus::{BusError, DeadLetter, Delivery, consumed_by};
use throughline_schemas::{MAJOR, Namespace, dead_letter};

use super::{
    Core, headers,
    publish::{Outgoing, publish},
};

/// Longest explanation in a header, in characters.
const MAX_ERROR_CHARS: usize = 2_000;
/// Left free for the protocol line and for headers the server adds, in bytes.
const HEADROOM_BYTES: usize = 1024;

/// Stores a dead letter. Headers that the server or a reader would obey (`Nats-…`, `Throughline-…`) are kept as
/// `Original-…`. A body that does not fit into one message is kept in the object store and named by a header.
pub(super) async fn bury(core: &Core, delivery: &Delivery, letter: &DeadLetter) -> Result<(), BusError> {
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
    let message_id = format!("dead.{}.{}", letter.stage, delivery.sequence);
    let mut message = Outgoing {
        stream: core.names.dead(),
        subject: subject(&core.settings.namespace, delivery, letter),
        message_id: &message_id,
        // A letter that was sent again and failed again is a second letter of the same workflow.
        create_only: false,
        body: delivery.body.clone(),
    };
    let headers_bytes: usize =
        delivery.headers.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    let written = letter.error.len().min(4 * MAX_ERROR_CHARS) + headers_bytes + HEADROOM_BYTES;
    let object = if message.body.len() + written > core.connection.facts().max_payload {
        let name = core.bodies.put(core, delivery.body.clone()).await?;
        message.body = Bytes::new();
        Some(name)
    } else {
        None
    };
    publish(core, &message, |map| {
        fill(map);
        if let Some(name) = &object {
            map.insert(headers::BODY, name.as_str());
        }
    })
    .await
    .map(|_| ())
}

/// Where a dead letter is filed. A message that tells no workflow is filed under its sequence.
fn subject(ns: &Namespace, delivery: &Delivery, letter: &DeadLetter) -> String {
    match &letter.subject {
        Some(subject) => subject.dead(ns),
        None => format!("{ns}.dead.v{MAJOR}.{}.unknown.{}", consumed_by(letter.stage), delivery.sequence),
    }
}
