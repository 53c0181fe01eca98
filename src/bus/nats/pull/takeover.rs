//! What the pinned client before this one was given and did not answer for; or this one itself, and it got lost between
//! the server and here.
//!
//! A message in the hand of a process that died comes again only after the ack wait, while the next pinned client is
//! given newer ones at once. Were those admitted first, a session would lose its order. The process that takes over
//! therefore reads the messages in question from the stream itself and hands them out before anything newer. They are still
//! the server's to deliver again, and handling them twice changes nothing, so there is nothing to answer for them.
//!
//! The server does not say which they are, only below which sequence there is none: one unanswered input
//! has everything above it in question. What a process had in hand is the latest of that, and the one at the bottom.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use throughline_actors::ports::bus::{BusError, Delivery, Receipt, Settlement};
use throughline_schemas::{StageName, Timestamp};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Instant, sleep, timeout_at};

use crate::bus::nats::{
    Core, StoredEvent,
    batch::{self, Batch},
    error::unavailable,
    stream_api::{self, ConsumerState, RawMessage},
};

/// Most messages that are kept of each kind of subject; of more, the latest. As many as all slots of a large stage.
const MOST: u64 = 4_096;
/// So many are read rather than looking for where the latest begin.
const ENOUGH: u64 = 2 * MOST;
/// Most bytes of their bodies.
const MOST_BYTES: usize = 64 << 20;
/// Messages that are asked for at once.
const BATCH: u64 = 512;
/// How long to try, of all pins that were lost and won meanwhile. Beyond that order is given up for this time: admitting
/// nothing at all would be worse.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// One of so many may be what the other process died of, so they say that they came before, and are handled one by one.
/// More are mostly messages that were acknowledged above one that was not, and go faster together.
const SUSPECTS: usize = 128;

/// Reads what was delivered before the message `first` and may not have been acknowledged, in the order of the stream.
pub(super) async fn unanswered(
    core: Arc<Core>,
    stage: StageName,
    first: u64,
    give_up_at: Instant,
) -> Vec<Delivery> {
    let began = Instant::now();
    let read = async {
        loop {
            match read(&core, stage, first).await {
                Ok(found) => return found,
                Err(error) => {
                    tracing::debug!(%stage, %error, "cannot read what another process left yet");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    let Ok(found) = timeout_at(give_up_at, read).await else {
        tracing::warn!(%stage, "what another process left is not known; it comes after the ack wait, perhaps out of order");
        return Vec::new();
    };
    if !found.is_empty() {
        let took = began.elapsed();
        tracing::info!(%stage, messages = found.len(), ?took, "taking over what another process left");
    }
    found
}

async fn read(core: &Core, stage: StageName, first: u64) -> Result<Vec<Delivery>, BusError> {
    let consumer = ConsumerState::ask(core, stage).await?;
    if consumer.num_ack_pending == 0 {
        return Ok(Vec::new());
    }
    let begin = consumer.ack_floor.stream_seq + 1;
    // What the server delivered to this client comes by itself.
    let end = first.min(consumer.delivered.stream_seq + 1);
    let all = core.settings.namespace.events_of(stage.consumes());
    let bare = all.trim_end_matches(".>").to_owned();
    let mut found = Vec::new();
    for filter in [bare, all] {
        found.extend(Kind { core, filter, end }.read(begin).await?);
    }
    found.sort_by_key(|delivery: &Delivery| delivery.sequence);
    let suspects = if found.len() <= SUSPECTS { found.len() } else { 1 };
    for delivery in found.iter_mut().take(suspects) {
        delivery.delivered = 2;
    }
    Ok(found)
}

/// The messages of one kind of subject, up to the first one that comes by itself.
struct Kind<'a> {
    core: &'a Core,
    filter: String,
    end: u64,
}

impl Kind<'_> {
    /// The first one, and the latest.
    async fn read(&self, begin: u64) -> Result<VecDeque<Delivery>, BusError> {
        let Some(oldest) = self.next(begin).await? else { return Ok(VecDeque::new()) };
        let mut found = Latest::default();
        let mut sequence = self.latest_from(oldest.seq).await?;
        while sequence < self.end {
            let batch = self.batch(sequence, BATCH.min(self.end - sequence)).await?;
            let (last, left) = (batch.messages.last().map(|message| message.sequence), batch.left);
            let here = batch.messages.into_iter().filter(|message| message.sequence < self.end);
            here.map(of_batch).for_each(|delivery| found.push(delivery));
            sequence = last.map_or(sequence, |last| last + 1);
            if left == 0 || last.is_none() {
                // A replica that is behind knows of no more; the leader does.
                let Some(message) = self.next(sequence).await? else { break };
                sequence = message.seq + 1;
                of_leader(&message)?.into_iter().for_each(|delivery| found.push(delivery));
            }
        }
        let mut found = found.deliveries;
        if found.front().is_none_or(|first| first.sequence > oldest.seq)
            && let Some(oldest) = of_leader(&oldest)?
        {
            found.push_front(oldest);
        }
        Ok(found)
    }

    /// From where on there are as many as may be kept, and not many more. Looks once for each bit of a sequence at most.
    /// What is published meanwhile is counted, too, or not; it is a few.
    async fn latest_from(&self, begin: u64) -> Result<u64, BusError> {
        let (mut low, mut high) = (begin, self.end);
        if high - low <= ENOUGH {
            return Ok(low);
        }
        let beyond = self.count(self.end).await?;
        // From `low` on there are always enough, if there are at all.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.count(middle).await?.saturating_sub(beyond) {
                ..MOST => high = middle,
                MOST..=ENOUGH => return Ok(middle),
                _ => low = middle,
            }
        }
        Ok(low)
    }

    /// How many there are from a sequence to the end of the log.
    async fn count(&self, sequence: u64) -> Result<u64, BusError> {
        let batch = self.batch(sequence, 1).await?;
        Ok(batch.left + batch.messages.len() as u64)
    }

    async fn batch(&self, sequence: u64, most: u64) -> Result<Batch, BusError> {
        batch::messages_from(self.core, sequence, &self.filter, most).await
    }

    /// The next one that does not come by itself, as the leader has it.
    async fn next(&self, sequence: u64) -> Result<Option<RawMessage>, BusError> {
        let next = stream_api::message_from(self.core, sequence, &self.filter).await?;
        Ok(next.filter(|message| message.seq < self.end))
    }
}

/// The latest deliveries, as many as may be kept.
#[derive(Default)]
struct Latest {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Latest {
    fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.body.len();
        self.deliveries.push_back(delivery);
        while (self.deliveries.len() as u64 > MOST || self.bytes > MOST_BYTES)
            && let Some(dropped) = self.deliveries.pop_front()
        {
            self.bytes -= dropped.body.len();
        }
    }
}

fn of_batch(message: StoredEvent) -> Delivery {
    Delivery {
        subject: message.subject,
        headers: message.headers,
        body: message.body,
        kept: None,
        sequence: message.sequence,
        delivered: 1,
        maybe_worked_on: false,
        published_at: message.stored_at,
        received_at: Instant::now(),
        receipt: Arc::new(Unanswerable),
    }
}

/// `None` if its headers are none; the server brings it back to be dead-lettered.
fn of_leader(message: &RawMessage) -> Result<Option<Delivery>, BusError> {
    let odd = || unavailable("reading what another process left");
    let Some(headers) = stream_api::headers_of(message) else { return Ok(None) };
    let published_at: Timestamp = OffsetDateTime::parse(&message.time, &Rfc3339).map_err(|_| odd())?.into();
    Ok(Some(Delivery {
        subject: message.subject.clone(),
        headers,
        body: stream_api::decode_base64(&message.data).ok_or_else(odd)?.into(),
        kept: None,
        sequence: message.seq,
        delivered: 1,
        maybe_worked_on: false,
        published_at,
        received_at: Instant::now(),
        receipt: Arc::new(Unanswerable),
    }))
}

/// The server has given the message to another process, and delivers it again when the ack wait is over.
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
