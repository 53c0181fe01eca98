//! What the pinned client before this one was given and did not answer for.
//!
//! A message in the hand of a process that died comes again only after the ack wait, while the next pinned client is
//! given newer ones at once. Were those admitted first, a session would lose its order. Whoever takes over therefore
//! reads the messages in question from the stream itself and hands them out before anything newer. They are still the
//! server's to deliver again, and handling them twice changes nothing, so there is nothing to answer for them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use throughline_actors::ports::bus::{BusError, Delivery, Receipt, Settlement, consumed_by};
use throughline_schemas::{StageName, Timestamp};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep};

use crate::bus::nats::{
    Core,
    error::unavailable,
    raw::{self, ConsumerState, RawMessage},
};

/// Most messages that are read; of more, the latest. As many as all slots of a large stage.
const MOST: usize = 4_096;
/// Most bytes of their bodies.
const MOST_BYTES: usize = 64 << 20;
/// How long to try. Beyond that order is given up for this time: admitting nothing at all would be worse.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// One of so many may be what the other process died of, so they say that they came before, and are handled one by one.
/// More are mostly messages that were acknowledged above one that was not, and go faster together.
const SUSPECTS: usize = 128;

/// Reads what was delivered before the message `first` and may not have been acknowledged, in the order of the stream.
pub(super) async fn unanswered(core: Arc<Core>, stage: StageName, first: u64) -> Vec<Delivery> {
    let give_up_at = Instant::now() + LIMIT;
    loop {
        match read(&core, stage, first).await {
            Ok(found) => {
                if !found.is_empty() {
                    tracing::info!(%stage, messages = found.len(), "taking over what another process left");
                }
                return found;
            }
            Err(error) if Instant::now() < give_up_at => {
                tracing::debug!(%stage, %error, "cannot read what another process left yet");
                sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!(%stage, %error, "what another process left is not known; it comes after the ack wait, perhaps out of order");
                return Vec::new();
            }
        }
    }
}

async fn read(core: &Core, stage: StageName, first: u64) -> Result<Vec<Delivery>, BusError> {
    let consumer = ConsumerState::ask(core, stage).await?;
    if consumer.num_ack_pending == 0 {
        return Ok(Vec::new());
    }
    let end = first.min(consumer.delivered.stream_seq + 1);
    let all = core.settings.namespace.events_of(consumed_by(stage));
    let bare = all.trim_end_matches(".>").to_owned();
    let mut found = Vec::new();
    for filter in [bare, all] {
        let (mut sequence, mut bytes) = (consumer.ack_floor.stream_seq + 1, 0);
        let mut of_filter = std::collections::VecDeque::new();
        while let Some(message) = raw::message_from(core, sequence, &filter).await? {
            // What the server delivered to this client comes by itself.
            if message.seq >= end {
                break;
            }
            sequence = message.seq + 1;
            let Some(delivery) = delivery(&message)? else { continue };
            bytes += delivery.body.len();
            of_filter.push_back(delivery);
            while of_filter.len() > MOST || bytes > MOST_BYTES {
                bytes -= of_filter.pop_front().map_or(bytes, |dropped: Delivery| dropped.body.len());
            }
        }
        found.extend(of_filter);
    }
    found.sort_by_key(|delivery| delivery.sequence);
    if found.len() <= SUSPECTS {
        for delivery in &mut found {
            delivery.delivered = 2;
        }
    }
    Ok(found)
}

/// `None` if its headers are none; the server brings it back to be buried.
fn delivery(message: &RawMessage) -> Result<Option<Delivery>, BusError> {
    let odd = || unavailable("reading what another process left");
    let Some(headers) = raw::headers_of(message) else { return Ok(None) };
    let published_at: Timestamp = OffsetDateTime::parse(&message.time, &Rfc3339).map_err(|_| odd())?.into();
    Ok(Some(Delivery {
        subject: message.subject.clone(),
        headers,
        body: raw::decode_base64(&message.data).ok_or_else(odd)?.into(),
        sequence: message.seq,
        delivered: 1,
        published_at,
        received_at: Instant::now(),
        receipt: Arc::new(Unanswerable),
    }))
}

/// The server has given the message to somebody else, and gives it to another when the ack wait is over.
struct Unanswerable;

#[async_trait]
impl Receipt for Unanswerable {
    async fn settle(&self, _: Settlement) -> Result<(), BusError> {
        Ok(())
    }

    async fn progress(&self) -> Result<(), BusError> {
        Ok(())
    }
}
