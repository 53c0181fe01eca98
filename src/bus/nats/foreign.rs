//! Messages on an event's subject that are not that event.
//!
//! Who may publish to a server may make it publish, too: it sends the acknowledgement of a message to whatever subject the
//! message names, past all permissions. So what stands on a subject is read before it is taken for our event.

use throughline_actors::{metrics, ports::bus::BusError};
use throughline_schemas::Subject;

use super::{Core, StoredEvent, reader, requests, stream_api};

/// Messages of one subject that are looked at for the event.
const MOST_LOOKED_AT: usize = 16;

/// What stands on a subject, as its last message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Nothing,
    /// The event that belongs there.
    Event,
    /// Something else, at this sequence.
    Foreign(u64),
}

/// Looks at a subject.
pub(super) async fn standing(core: &Core, stream: &str, subject: &str) -> Result<Standing, BusError> {
    let found = requests::last_of_subject(core, stream, subject).await?.and_then(reader::direct);
    Ok(match found {
        None => Standing::Nothing,
        Some(stored) if is_foreign(core, &stored) => Standing::Foreign(stored.sequence),
        Some(_) => Standing::Event,
    })
}

/// Whether a message on the subject of an event is not that event. A message on any other subject is none.
pub(super) fn is_foreign(core: &Core, stored: &StoredEvent) -> bool {
    Subject::parse(&core.settings.namespace, &stored.subject).is_some_and(|of| !of.is_of(&stored.body))
}

/// Whether the event is among the first messages of its subject, as the leader of the stream has them. nats-server 2.11 finds
/// no last message of a subject whose last one was deleted, while earlier ones are there.
pub(super) async fn is_among(core: &Core, subject: &str) -> Result<bool, BusError> {
    let Some(address) = Subject::parse(&core.settings.namespace, subject) else { return Ok(false) };
    let mut next = 1;
    for _ in 0..MOST_LOOKED_AT {
        let Some(message) = stream_api::message_from(core, next, subject).await? else { return Ok(false) };
        if stream_api::decode_base64(&message.data).is_some_and(|body| address.is_of(&body)) {
            return Ok(true);
        }
        next = message.seq + 1;
    }
    Ok(false)
}

/// Takes a foreign message out of the log, so that the event finds its place.
pub(super) async fn take_out(core: &Core, subject: &str, sequence: u64) -> Result<(), BusError> {
    stream_api::delete(core, sequence).await?;
    metrics::foreign_message();
    tracing::warn!(
        subject,
        sequence,
        "a message that is no event stood on the subject of one, and was taken out of the log; somebody makes the server \
         write there: see \"accounts\" in deploy/nats"
    );
    Ok(())
}
