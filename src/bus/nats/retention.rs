//! How full the log and the streams beside it are, what stages still need of it, and removing what is not needed.
//! Always the leader of a stream: a replica may not know the latest yet.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use throughline_actors::{
    policy::thinning::Thinning,
    ports::{
        bus::BusError,
        log::{BODIES, Fill, Log, Purge, Released, Room},
    },
};
use throughline_schemas::{EventType, StageName, Subject, Timestamp};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Core, Names, NatsBus, StoredEvent, batch, erase,
    error::{unavailable, unavailable_because},
    headers, large_bodies,
    publish::{Expected, Outgoing, publish},
    reader, release, requests,
    stream_api::{self, ConsumerState},
};

/// Advisories that are looked through for the messages that they are about; while there are more nothing is removed.
const MOST_BURIALS: u64 = 256;

/// What the server says of a stream.
#[derive(Deserialize)]
pub(super) struct StreamInfo {
    /// When it said so.
    ts: String,
    config: StreamLimits,
    pub(super) state: StreamState,
}

#[derive(Deserialize)]
struct StreamLimits {
    #[serde(default)]
    max_bytes: i64,
}

#[derive(Deserialize)]
pub(super) struct StreamState {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    pub(super) last_seq: u64,
}

impl StreamInfo {
    pub(super) async fn ask(core: &Core, stream: &str) -> Result<Self, BusError> {
        stream_api::ask(core, format!("$JS.API.STREAM.INFO.{stream}"), Bytes::new()).await
    }

    /// When the server said so, by its clock.
    pub(super) fn now(&self) -> Result<Timestamp, BusError> {
        instant(&self.ts)
    }

    fn max_bytes(&self) -> Option<u64> {
        u64::try_from(self.config.max_bytes).ok().filter(|max| *max > 0)
    }

    /// Sequence of the first message, or of the next one.
    fn first(&self) -> u64 {
        if self.state.messages == 0 { self.state.last_seq + 1 } else { self.state.first_seq }
    }
}

#[async_trait]
impl Log for NatsBus {
    async fn last(&self) -> Result<u64, BusError> {
        Ok(StreamInfo::ask(&self.core, self.core.names.events()).await?.state.last_seq)
    }

    async fn fill(&self) -> Result<Fill, BusError> {
        fill(&self.core).await
    }

    async fn age_at(&self, sequence: u64) -> Result<Option<Duration>, BusError> {
        let core = &self.core;
        let Some(message) = stream_api::message_from(core, sequence, batch::ALL).await? else {
            return Ok(None);
        };
        let info = StreamInfo::ask(core, core.names.events()).await?;
        let age = info.now()?.ms_since(instant(&message.time)?);
        Ok(Some(Duration::from_millis(age)))
    }

    async fn first_within(&self, age: Duration) -> Result<u64, BusError> {
        first_within(&self.core, age).await
    }

    async fn purge(&self, purge: &Purge) -> Result<u64, BusError> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        let core = &self.core;
        let address = format!("$JS.API.STREAM.PURGE.{}", core.names.events());
        let body = format!(r#"{{"seq":{}}}"#, purge.before);
        let done: Purged = stream_api::ask(core, address, body.into()).await?;
        // A reader that does not find it sees where the log begins, and no more.
        if let Err(error) = keep_record(core, purge).await {
            tracing::debug!(%error, "that old events were removed is not on record");
        }
        Ok(done.purged)
    }

    async fn finished_from(
        &self,
        sequence: u64,
        bytes: u64,
        ended_before: Timestamp,
    ) -> Result<Vec<u64>, BusError> {
        let core = &self.core;
        let ns = &core.settings.namespace;
        let (mut next, mut read, mut thinning) = (sequence, 0, Thinning::new(ended_before));
        while thinning.bytes() < bytes && read < MOST_LOOKED_THROUGH {
            let batch = batch::messages_from(core, next, batch::ALL, ARCHIVE_BATCH).await?;
            let Some(last) = batch.messages.last() else { break };
            (next, read) = (last.sequence + 1, read + batch.messages.len());
            for message in &batch.messages {
                // An event with a large body says in its headers whose it is; what stands there is compared nevertheless.
                if let Some(subject) = Subject::parse(ns, &message.subject)
                    && (message.header(headers::BODY).is_some() || subject.is_of(&message.body))
                {
                    thinning.see(&subject, message.sequence, stored_bytes(message), message.stored_at);
                }
            }
        }
        Ok(thinning.finished())
    }

    async fn remove(&self, sequences: &[u64]) -> Result<u64, BusError> {
        erase::remove_all(&self.core, self.core.names.events(), sequences).await
    }

    async fn release_bodies(&self, bytes: u64) -> Result<Released, BusError> {
        release::release(&self.core, bytes).await
    }
}

impl NatsBus {
    /// What retention removed last, if that is on record.
    pub async fn last_purge(&self) -> Result<Option<Purge>, BusError> {
        let core = &self.core;
        let found = requests::last_of_subject(core, &core.names.meta_stream(), &record_key(core)).await?;
        Ok(found.and_then(|message| serde_json::from_slice(&message.payload).ok()))
    }
}

/// Messages of a full log that are looked through at once for what is finished.
const MOST_LOOKED_THROUGH: usize = 50_000;
/// What the server adds to a message of the log, in bytes, besides subject, headers and body.
const MESSAGE_OVERHEAD: usize = 30;

/// About what a message takes in the log.
fn stored_bytes(message: &StoredEvent) -> u64 {
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    (MESSAGE_OVERHEAD + message.subject.len() + headers + message.body.len()) as u64
}

/// Messages read at once for an archive.
const ARCHIVE_BATCH: u64 = 256;
/// Bytes of bodies behind which no other is fetched for it, so that there are at most twice as many in memory.
const ARCHIVE_BYTES: usize = large_bodies::MAX_BODY_BYTES;

impl NatsBus {
    /// Some of the next stored messages from a sequence on, before another, with their bodies; empty if there are none (any
    /// more). A body that cannot be had is left as its reference. Nothing is left out: where sequences are missing, the
    /// leader of the stream was asked whether it has them.
    pub async fn stored_from(&self, first: u64, before: u64) -> Result<Vec<StoredEvent>, BusError> {
        let core = &self.core;
        let most = ARCHIVE_BATCH.min(before.saturating_sub(first));
        let batch = batch::messages_from(core, first, batch::ALL, most).await?;
        let (mut next, mut messages, mut bytes) = (first, Vec::with_capacity(batch.messages.len()), 0);
        for message in batch.messages.into_iter().take_while(|message| message.sequence < before) {
            if message.sequence != next {
                let known = stream_api::message_from(core, next, batch::ALL).await?;
                if known.is_none_or(|known| known.seq != message.sequence) {
                    return Err(unavailable("reading stored messages: a replica does not have all of them"));
                }
            }
            next = message.sequence + 1;
            let message = reader::complete(core, message).await?;
            bytes += message.body.len();
            messages.push(message);
            if bytes >= ARCHIVE_BYTES {
                break;
            }
        }
        if messages.is_empty()
            && stream_api::message_from(core, first, batch::ALL)
                .await?
                .is_some_and(|known| known.seq < before)
        {
            return Err(unavailable("reading stored messages: a replica does not have them"));
        }
        Ok(messages)
    }
}

/// Where the record of the last purge stands.
fn record_key(core: &Core) -> String {
    format!("$KV.{}.retention", core.names.meta())
}

async fn keep_record(core: &Core, purge: &Purge) -> Result<(), BusError> {
    let subject = record_key(core);
    let body = serde_json::to_vec(purge).map_err(|error| unavailable_because(subject.clone(), error))?;
    let message = Outgoing {
        stream: &core.names.meta_stream(),
        message_id: &format!("{subject}.{}", purge.before),
        subject,
        expected: Expected::Anything,
        body: body.into(),
    };
    publish(core, &message, |_| {}).await.map(drop)
}

async fn fill(core: &Core) -> Result<Fill, BusError> {
    let names = &core.names;
    let info = StreamInfo::ask(core, names.events()).await?;
    let last = info.state.last_seq;
    let needed = try_join_all(StageName::ALL.map(async |stage| {
        let outstanding = outstanding(core, stage).await?;
        Ok::<_, BusError>(outstanding.filter(|first| *first <= last).map(|first| (first, stage)))
    }))
    .await?;
    let dead_lettering = dead_lettering(core).await?;
    let needed = needed.into_iter().flatten().chain(dead_lettering).min_by_key(|(sequence, _)| *sequence);
    let others = [
        ("dead_letters", names.dead().to_owned()),
        (BODIES, names.bodies_stream()),
        ("claims", names.claims_stream()),
        ("advisories", names.advisories().to_owned()),
    ];
    let others = try_join_all(others.map(async |(holds, stream)| {
        let info = StreamInfo::ask(core, &stream).await?;
        Ok::<_, BusError>(Room { holds, bytes: info.state.bytes, max_bytes: info.max_bytes() })
    }))
    .await?;
    Ok(Fill {
        now: info.now()?,
        first: info.first(),
        last,
        messages: info.state.messages,
        bytes: info.state.bytes,
        max_bytes: info.max_bytes(),
        needed,
        others,
    })
}

/// The first message of a stage that is not acknowledged, given out or not. What lies below the consumer's
/// acknowledgement floor is settled; what of it is not this stage's says nothing, so the next that is has to be looked up.
async fn outstanding(core: &Core, stage: StageName) -> Result<Option<u64>, BusError> {
    let position = ConsumerState::ask(core, stage).await?;
    if position.num_pending == 0 && position.num_ack_pending == 0 {
        return Ok(None);
    }
    let from = position.ack_floor.stream_seq + 1;
    let ns = &core.settings.namespace;
    let event_type = stage.consumes();
    let mut filters = vec![ns.events_of(event_type)];
    if event_type == EventType::UserInputReceived {
        filters.push(ns.bare_input());
    }
    let found =
        try_join_all(filters.iter().map(async |filter| stream_api::message_from(core, from, filter).await))
            .await?;
    let first = found.into_iter().flatten().map(|message| message.seq).min();
    // Acknowledged since.
    Ok(first)
}

/// The earliest message that the server has given up on and that is still to be dead-lettered, and its stage.
async fn dead_lettering(core: &Core) -> Result<Option<(u64, StageName)>, BusError> {
    #[derive(Deserialize)]
    struct Advisory {
        consumer: String,
        stream_seq: u64,
    }
    let stream = core.names.advisories();
    let info = StreamInfo::ask(core, stream).await?;
    if info.state.messages == 0 {
        return Ok(None);
    }
    if info.state.messages > MOST_BURIALS {
        return Ok(Some((0, StageName::Input)));
    }
    let mut first: Option<(u64, StageName)> = None;
    let mut next = info.state.first_seq;
    while next <= info.state.last_seq {
        let Some(message) = stream_api::any_from(core, stream, next).await? else { break };
        let body = stream_api::decode_base64(&message.data).unwrap_or_default();
        next = message.seq + 1;
        // What cannot be read is about no message; the handler of undeliverable messages drops it.
        let Ok(advisory) = serde_json::from_slice::<Advisory>(&body) else { continue };
        let stage = StageName::ALL.into_iter().find(|stage| Names::consumer(*stage) == advisory.consumer);
        let found = (advisory.stream_seq, stage.unwrap_or(StageName::Input));
        if first.is_none_or(|(sequence, _)| found.0 < sequence) {
            first = Some(found);
        }
    }
    Ok(first)
}

/// Sequence of the first message, or of the next one.
pub(super) async fn first(core: &Core) -> Result<u64, BusError> {
    Ok(StreamInfo::ask(core, core.names.events()).await?.first())
}

/// Messages are stored in the order of their times, so that halving finds the first that is young enough.
pub(super) async fn first_within(core: &Core, age: Duration) -> Result<u64, BusError> {
    let info = StreamInfo::ask(core, core.names.events()).await?;
    let now = info.now()?;
    let (mut low, mut high) = (info.first(), info.state.last_seq + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match stream_api::message_from(core, middle, batch::ALL).await? {
            Some(message) if u128::from(now.ms_since(instant(&message.time)?)) > age.as_millis() => {
                low = message.seq + 1;
            }
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}

pub(super) fn instant(text: &str) -> Result<Timestamp, BusError> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339);
    parsed.map(Timestamp::from).map_err(|_| unavailable("reading the server's clock"))
}
