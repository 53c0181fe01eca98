//! Loading recorded messages into a namespace of their own, which no stage ever reads.
//!
//! A stage's consumer begins at the beginning of the log and would take everything imported for work to do. So such a
//! namespace has a log and no consumers, its log is marked, and [`super::topology::setup`] refuses marked logs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_nats::{
    HeaderMap,
    jetstream::consumer::{DeliverPolicy, ReplayPolicy, pull::OrderedConfig},
};
use bytes::Bytes;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use throughline_actors::ports::bus::{BusError, Published};
use throughline_schemas::{
    Timestamp, decode, encode_reference,
    recording::{RECORDED_AT, RECORDED_SEQUENCE, RECORDED_SUBJECT},
};

use super::{
    Core, NatsBus, StoredEvent,
    error::{unavailable, unavailable_because},
    headers, large_bodies,
    publish::{Expected, MESSAGE_ID, Outgoing, publish},
    reader::STALL_LIMIT,
    topology::{self, Limits},
};

/// On a log that holds imported messages and is not to be worked on.
pub(super) const MARK: (&str, &str) = ("throughline.holds", "imported recordings");
/// Messages that a namespace may hold for something to be imported into it; each takes 32 bytes of memory meanwhile.
const MAX_KNOWN: usize = 5_000_000;

/// Nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The namespace is one that workers work on.
    #[error(
        "the namespace {0} is set up for workers, which would run everything imported; name another one with --namespace"
    )]
    Live(String),
    /// The namespace holds too much.
    #[error("the namespace {0} holds more than {MAX_KNOWN} messages; name another one with --namespace")]
    TooMany(String),
    /// A subject is not of the recording's namespace.
    #[error("message {sequence} has the subject {subject:?}, which is no event's of the recorded namespace")]
    Subject {
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
    },
    /// The bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Loads recorded messages; what is there already is not loaded again.
pub struct Importer {
    core: Arc<Core>,
    /// The beginning of recorded subjects: `{namespace}.`.
    prefix: String,
    known: HashSet<u128>,
}

impl NatsBus {
    /// Begins to import from a recording of the namespace `recorded`. Makes this bus's namespace one for imports, if
    /// there is nothing yet.
    pub async fn import(&self, recorded: &str, limits: &Limits) -> Result<Importer, ImportError> {
        let core = Arc::clone(&self.core);
        if !topology::prepare_import(&core, limits).await? {
            return Err(ImportError::Live(self.namespace().to_string()));
        }
        let known = known(&core).await?;
        Ok(Importer { core, prefix: format!("{recorded}."), known })
    }
}

impl Importer {
    /// Loads a message, unless it is there.
    pub async fn add(&mut self, event: StoredEvent) -> Result<Published, ImportError> {
        let StoredEvent { sequence, subject, stored_at, headers: recorded, body } = event;
        let ns = &self.core.settings.namespace;
        let rest = subject.strip_prefix(&self.prefix).filter(|rest| is_event(rest));
        let Some(rest) = rest else { return Err(ImportError::Subject { sequence, subject }) };
        let message_id = format!("recorded.{}{sequence}.{}", self.prefix, stored_at.unix_ms());
        let key = key(&message_id);
        if self.known.contains(&key) {
            return Ok(Published::Already);
        }
        if self.known.len() >= MAX_KNOWN {
            return Err(ImportError::TooMany(ns.to_string()));
        }
        let (body, object) = self.outgoing(body).await?;
        let message = Outgoing {
            stream: self.core.names.events(),
            subject: format!("{ns}.{rest}"),
            message_id: &message_id,
            expected: Expected::Anything,
            body,
        };
        let fill = |map: &mut HeaderMap| {
            for (name, value) in &recorded {
                if !name.eq_ignore_ascii_case(headers::BODY) {
                    headers::append(map, &kept_name(name), value);
                }
            }
            headers::append(map, RECORDED_AT, &stored_at.to_string());
            headers::append(map, RECORDED_SEQUENCE, &sequence.to_string());
            headers::append(map, RECORDED_SUBJECT, &subject);
            if let Some(object) = &object {
                headers::append(map, headers::BODY, object);
            }
        };
        let published = publish(&self.core, &message, fill).await?;
        self.known.insert(key);
        Ok(published)
    }

    /// The body to publish, and the object that holds the whole one, if it is large.
    async fn outgoing(&self, body: Bytes) -> Result<(Bytes, Option<String>), BusError> {
        if body.len() <= large_bodies::INLINE_BYTES {
            return Ok((body, None));
        }
        // Inputs are large without being events of ours, and are never stored apart.
        let Ok(event) = decode(&body) else { return Ok((body, None)) };
        if event.event_type() == throughline_schemas::EventType::UserInputReceived {
            return Ok((body, None));
        }
        let object = self.core.bodies.put(&self.core, body).await?;
        let reference = encode_reference(&event, &self.core.bodies.uri(&object))?;
        Ok((reference.into(), Some(object)))
    }
}

fn is_event(rest: &str) -> bool {
    let prefix = format!("v{}.", throughline_schemas::MAJOR);
    rest.strip_prefix(&prefix).and_then(|rest| rest.split('.').next()?.parse().ok()).is_some_and(
        |_: throughline_schemas::EventType| {
            !rest.contains(['*', '>', ' ', '\r', '\n', '\t']) && !rest.contains("..")
        },
    )
}

/// Headers that the server acts on would be obeyed a second time.
fn kept_name(name: &str) -> String {
    let of_server = name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("nats-"));
    if of_server { format!("{}{name}", headers::ORIGINAL) } else { name.to_owned() }
}

fn key(message_id: &str) -> u128 {
    let digest = Sha256::digest(message_id);
    digest.iter().take(16).fold(0, |key, byte| (key << 8) | u128::from(*byte))
}

/// What was imported before, by message id. Bodies are not sent.
async fn known(core: &Core) -> Result<HashSet<u128>, ImportError> {
    let what = "reading what was imported before";
    let config = OrderedConfig {
        filter_subject: core.settings.namespace.all_events(),
        deliver_policy: DeliverPolicy::All,
        replay_policy: ReplayPolicy::Instant,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let created = core.connection.jetstream.create_consumer_on_stream(config, core.names.events());
    let asked = format!("$JS.API.CONSUMER.CREATE.{}.", core.names.events());
    let consumer = core.connection.complaints().unless_forbidden(&asked, created).await?;
    let consumer = consumer.map_err(|error| unavailable_because(what, error))?;
    let mut left = consumer.cached_info().num_pending;
    let mut known = HashSet::new();
    if left == 0 {
        return Ok(known);
    }
    let mut messages =
        Box::pin(consumer.messages()).await.map_err(|error| unavailable_because(what, error))?;
    while left > 0 {
        let message = tokio::time::timeout(STALL_LIMIT, messages.next()).await;
        let message = match message.map_err(|_| unavailable(what))? {
            Some(message) => message.map_err(|error| unavailable_because(what, error))?,
            None => return Err(unavailable(what).into()),
        };
        left = message.info().map_err(|error| unavailable_because(what, error))?.pending;
        if let Some(id) = message.headers.as_ref().and_then(|map| map.get(MESSAGE_ID)) {
            known.insert(key(id.as_str()));
        }
        if known.len() > MAX_KNOWN {
            return Err(ImportError::TooMany(core.settings.namespace.to_string()));
        }
    }
    Ok(known)
}

/// An imported message as it was where it was recorded, but for its subject.
pub(super) fn as_recorded(mut event: StoredEvent) -> StoredEvent {
    let recorded: HashMap<&str, &str> = event
        .headers
        .iter()
        .filter(|(name, _)| name == RECORDED_AT || name == RECORDED_SEQUENCE)
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let at = recorded
        .get(RECORDED_AT)
        .and_then(|at| time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).ok());
    let sequence = recorded.get(RECORDED_SEQUENCE).and_then(|sequence| sequence.parse().ok());
    if let (Some(at), Some(sequence)) = (at, sequence) {
        event.stored_at = Timestamp::from(at);
        event.sequence = sequence;
    }
    event
}
