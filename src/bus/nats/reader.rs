//! Reading what is stored, in the order of the stream.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Message,
    jetstream::consumer::{
        DeliverPolicy, ReplayPolicy,
        pull::{Ordered, OrderedConfig},
    },
};
use bytes::Bytes;
use futures_util::StreamExt;
use throughline_actors::ports::bus::{BusError, KeptBody};
use throughline_schemas::{EventType, MAJOR, Namespace, Subject, Timestamp, Tokens};

use super::{
    Core,
    error::{unavailable, unavailable_because},
    foreign, headers, import, large_bodies, requests,
};

/// How long reading stored messages may stall before it is given up.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Which log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// The events.
    Events,
    /// The dead letters.
    Dead,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// Which log.
    pub log: Log,
    /// Subjects to read, with wildcards; see [`Namespace`] for making them.
    pub filters: Vec<String>,
    /// Only what was stored at this time or later.
    pub since: Option<Timestamp>,
    /// Only what has this sequence or a later one; `since` then does not count.
    pub from: Option<u64>,
    /// Go on with what is stored later, instead of ending.
    pub follow: bool,
}

impl ReadRequest {
    /// Every event of a namespace from the beginning, without following.
    pub fn all_events(ns: &Namespace) -> Self {
        Self::events(ns.all_events())
    }

    /// Events of one filter from the beginning, without following.
    pub fn events(filter: String) -> Self {
        Self { log: Log::Events, filters: vec![filter], since: None, from: None, follow: false }
    }

    /// Every dead letter of a namespace, without following.
    pub fn all_dead(ns: &Namespace) -> Self {
        Self { log: Log::Dead, filters: vec![ns.dead_letters()], since: None, from: None, follow: false }
    }

    /// The same, leaving out what was stored before.
    #[must_use]
    pub fn since(self, since: Timestamp) -> Self {
        Self { since: Some(since), ..self }
    }
}

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its sequence in its stream; of an imported message, in the one where it was recorded.
    pub sequence: u64,
    /// The subject it is stored under.
    pub subject: String,
    /// When it was stored; of an imported message, where it was recorded.
    pub stored_at: Timestamp,
    /// Its headers, by name.
    pub headers: Vec<(String, String)>,
    /// Its body; a body kept in the object store has been fetched.
    pub body: Bytes,
}

impl StoredEvent {
    /// Its type, by its subject.
    pub fn event_type(&self) -> Option<EventType> {
        Tokens::of(&self.subject)?.event_type()
    }

    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Stored messages in the order of the stream. Reading disturbs no stage.
pub struct EventReader {
    core: Arc<Core>,
    messages: Box<Ordered>,
    follow: bool,
    /// All that was stored has been read; without following, reading ends there.
    at_end: bool,
    /// Read, but its body is not fetched yet: kept so that a cancelled `next` loses nothing.
    pending: Option<StoredEvent>,
}

impl EventReader {
    pub(super) async fn open(core: Arc<Core>, request: ReadRequest) -> Result<Self, BusError> {
        let stream_name = match request.log {
            Log::Events => core.names.events(),
            Log::Dead => core.names.dead(),
        };
        let deliver_policy = match (request.from, request.since) {
            (Some(start_sequence), _) => DeliverPolicy::ByStartSequence { start_sequence },
            (None, Some(since)) => DeliverPolicy::ByStartTime { start_time: since.into() },
            (None, None) => DeliverPolicy::All,
        };
        let consumed = Box::pin(consume(&core, stream_name, request.filters, deliver_policy)).await?;
        let (is_empty, messages) = consumed;
        Ok(Self { core, messages, follow: request.follow, at_end: is_empty, pending: None })
    }

    /// The next stored message; `None` after the last one unless following. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<StoredEvent>, BusError> {
        loop {
            if let Some(event) = &self.pending {
                let body = whole_body(&self.core, event).await?;
                return Ok(self.pending.take().map(|event| StoredEvent { body, ..event }));
            }
            if self.at_end && !self.follow {
                return Ok(None);
            }
            let next = if self.follow {
                self.messages.next().await
            } else {
                tokio::time::timeout(STALL_LIMIT, self.messages.next())
                    .await
                    .map_err(|_| unavailable("reading stored events: the server sends nothing"))?
            };
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(unavailable_because("reading stored events", error)),
                None => return Ok(None),
            };
            let info = message.info().map_err(|error| unavailable_because("reading stored events", error))?;
            self.at_end |= info.pending == 0;
            let event = StoredEvent {
                sequence: info.stream_sequence,
                stored_at: info.published.into(),
                headers: sorted(headers::pairs(message.headers.as_ref())),
                subject: message.subject.to_string(),
                body: message.payload.clone(),
            };
            self.pending = Some(import::as_recorded(event));
        }
    }
}

/// Begins to read one stream, and tells whether nothing is stored there. Boxed, or every future that reads would carry
/// its 16 KiB.
async fn consume(
    core: &Core,
    stream_name: &str,
    mut filters: Vec<String>,
    deliver_policy: DeliverPolicy,
) -> Result<(bool, Box<Ordered>), BusError> {
    let failed = |error: async_nats::Error| unavailable_because("opening a reader", error);
    // Only a consumer with a name and a single filter tells its filter in the request's subject.
    let (filter_subject, filter_subjects) = match filters.as_mut_slice() {
        [only] => (std::mem::take(only), Vec::new()),
        _ => (String::new(), filters),
    };
    let config = OrderedConfig {
        name: Some(format!("read_{}", uuid::Uuid::now_v7().simple())),
        filter_subject,
        filter_subjects,
        deliver_policy,
        replay_policy: ReplayPolicy::Instant,
        ..OrderedConfig::default()
    };
    let asked = format!("$JS.API.CONSUMER.CREATE.{stream_name}.");
    let created = core.connection.jetstream.create_consumer_on_stream(config, stream_name);
    let created = core.connection.complaints().unless_forbidden(&asked, created).await?;
    let consumer = match created {
        Ok(consumer) => consumer,
        Err(_) if requests::stream_is_missing(core, stream_name).await => {
            return Err(BusError::NotSetUp(format!("the stream {stream_name} does not exist")));
        }
        Err(error) => return Err(failed(error.into())),
    };
    let empty = consumer.cached_info().num_pending == 0;
    let messages = Box::pin(consumer.messages()).await.map_err(|error| failed(error.into()))?;
    Ok((empty, Box::new(messages)))
}

/// See [`super::NatsBus::last`].
pub(super) async fn last(core: &Core, subject: &Subject) -> Result<Option<StoredEvent>, BusError> {
    last_of(core, &subject.live(&core.settings.namespace)).await
}

/// The same of a subject in words.
pub(super) async fn last_of(core: &Core, subject: &str) -> Result<Option<StoredEvent>, BusError> {
    let found = requests::last_of_subject(core, core.names.events(), subject).await?;
    let event = found.and_then(direct).filter(|event| !foreign::is_foreign(core, event));
    let Some(event) = event else { return Ok(None) };
    let body = whole_body(core, &event).await?;
    Ok(Some(StoredEvent { body, ..event }))
}

/// The message of a stream at a sequence. A body that is kept elsewhere and cannot be had is left as its reference.
pub(super) async fn at(core: &Core, stream: &str, sequence: u64) -> Result<Option<StoredEvent>, BusError> {
    let Some(event) = reference_at(core, stream, sequence).await? else { return Ok(None) };
    match whole_body(core, &event).await {
        Ok(body) => Ok(Some(StoredEvent { body, ..event })),
        Err(error) => {
            tracing::warn!(sequence, %error, "a message's body cannot be fetched");
            Ok(Some(event))
        }
    }
}

/// The same, without fetching a body that is kept elsewhere.
pub(super) async fn reference_at(
    core: &Core,
    stream: &str,
    sequence: u64,
) -> Result<Option<StoredEvent>, BusError> {
    Ok(requests::message_at(core, stream, sequence).await?.and_then(direct))
}

/// The same message with its whole body and its headers in the order of all that is read here. Only a body that is gone for
/// good is left as its reference.
pub(super) async fn complete(core: &Core, event: StoredEvent) -> Result<StoredEvent, BusError> {
    let body = match whole_body(core, &event).await {
        Ok(body) => body,
        Err(error) => match event.header(headers::BODY) {
            Some(name) if core.bodies.is_gone(core, name).await? => {
                tracing::warn!(sequence = event.sequence, %error, "a message's body is gone");
                event.body.clone()
            }
            Some(_) | None => return Err(error),
        },
    };
    Ok(StoredEvent { body, headers: sorted(event.headers), ..event })
}

/// What the server adds to the headers of a message that it reads on request: where the message is.
const PLACE: [&str; 4] = ["Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp"];
/// What it adds besides to one of many: how many more there are.
const PLACE_AMONG_MANY: [&str; 2] = ["Nats-Num-Pending", "Nats-Last-Sequence"];

/// Reads the answer of a direct get, whose headers say what a stored message's own do not.
pub(super) fn direct(message: Message) -> Option<StoredEvent> {
    let event = placed(message, &[&PLACE])?;
    Some(StoredEvent { headers: sorted(event.headers), ..event })
}

/// The same of one of many answers, with its headers in their order; `None` if it is none.
pub(super) fn of_batch(message: Message) -> Option<StoredEvent> {
    placed(message, &[&PLACE, &PLACE_AMONG_MANY])
}

/// The same of what the server republishes once it is stored.
pub(super) fn republished(message: Message) -> Option<StoredEvent> {
    let event = placed(message, &[&PLACE, &["Nats-Last-Sequence"]])?;
    Some(StoredEvent { headers: sorted(event.headers), ..event })
}

fn placed(message: Message, added: &[&[&'static str]]) -> Option<StoredEvent> {
    let map = message.headers.as_ref()?;
    // A publisher may have used these names, too; what the server says comes last.
    let of = |name: &'static str| map.get_last(name).map(|value| value.as_str().to_owned());
    let stored_at = of("Nats-Time-Stamp")?;
    let stored_at = time::OffsetDateTime::parse(&stored_at, &time::format_description::well_known::Rfc3339);
    let mut headers = headers::pairs(Some(map));
    for name in added.iter().copied().flatten() {
        if let Some(place) = headers.iter().rposition(|(known, _)| known == name) {
            headers.remove(place);
        }
    }
    Some(StoredEvent {
        sequence: of("Nats-Sequence")?.parse().ok()?,
        subject: of("Nats-Subject")?,
        stored_at: stored_at.ok()?.into(),
        headers,
        body: message.payload,
    })
}

/// The client keeps headers in a map; a fixed order makes what is printed comparable.
fn sorted(mut pairs: Vec<(String, String)>) -> Vec<(String, String)> {
    pairs.sort_unstable();
    pairs
}

/// Where the body is, if it is kept elsewhere. References in what others published are not followed.
pub(super) fn kept(core: &Core, event: &StoredEvent) -> Option<KeptBody> {
    let ns = &core.settings.namespace;
    let input = format!("{ns}.v{MAJOR}.{}", EventType::UserInputReceived);
    if event.subject.starts_with(&input) { None } else { large_bodies::kept(&event.headers) }
}

/// The body, fetched if it is kept elsewhere.
pub(super) async fn whole_body(core: &Core, event: &StoredEvent) -> Result<Bytes, BusError> {
    match kept(core, event) {
        Some(kept) => core.bodies.fetch(core, &kept.name).await,
        None => Ok(event.body.clone()),
    }
}
