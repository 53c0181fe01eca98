//! Waiting for ends without a consumer: a plain subscription to what the server republishes once it is stored, and a direct
//! look at the subjects of the ends that are waited for, since a subscription sees nothing while the connection is down. A
//! server has room for a limited number of consumers, and none for each of thousands who wait.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_nats::{Message, Subscriber};
use futures_util::{FutureExt, StreamExt, stream};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::{Subject, Timestamp};
use tokio::{sync::watch, time::Instant};

use super::{
    Core, StoredEvent,
    error::{unavailable, unavailable_because},
    foreign, reader, requests,
};

/// When the first direct look is repeated; each time after that, after twice as long, up to the second.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));
/// After a look that the server did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Workflows that are looked at in one go, unless the connection was lost.
const MOST_AT_ONCE: usize = 64;

/// See the module's documentation.
pub struct EndWatch {
    core: Arc<Core>,
    streams: stream::SelectAll<Subscriber>,
    generation: watch::Receiver<u64>,
    /// What was stored earlier does not count.
    since: Option<Timestamp>,
    /// Where the ends of each workflow may stand, by the caller's name for it.
    addresses: HashMap<String, Vec<Subject>>,
    /// Names, in the order in which they are looked at; of one that is forgotten there may be a rest.
    order: VecDeque<String>,
    /// How many of them are to be looked at now.
    due: usize,
    next_look: Instant,
    between: Duration,
    /// Heard, but its body is not fetched yet: kept so that a cancelled `next` loses nothing.
    pending: Option<StoredEvent>,
}

impl EndWatch {
    /// `filters` are subjects of what the server republishes once it is stored.
    pub(super) async fn open(
        core: Arc<Core>,
        filters: Vec<String>,
        since: Option<Timestamp>,
    ) -> Result<Self, BusError> {
        const WHAT: &str = "subscribing to ends";
        let client = &core.connection.client;
        let generation = core.connection.generation();
        let mut complaints = core.connection.complaints();
        let mut streams = stream::SelectAll::new();
        for filter in filters {
            let subscriber = client.subscribe(filter).await;
            streams.push(subscriber.map_err(|error| unavailable_because(WHAT, error))?);
        }
        // Only then is the server known to have the subscriptions.
        let flushed = tokio::time::timeout(core.settings.request_timeout, client.flush()).await;
        flushed.map_err(|_| unavailable(WHAT))?.map_err(|error| unavailable_because(WHAT, error))?;
        if let Some(words) = complaints.forbidden_by_now("Subscription to") {
            return Err(BusError::Forbidden(words));
        }
        let stream = core.names.events();
        if requests::stream_is_missing(&core, stream).await {
            return Err(BusError::NotSetUp(format!("the stream {stream} does not exist")));
        }
        Ok(Self {
            streams,
            generation,
            since,
            addresses: HashMap::new(),
            order: VecDeque::new(),
            due: 0,
            next_look: Instant::now() + LOOK_AGAIN.0,
            between: LOOK_AGAIN.0,
            pending: None,
            core,
        })
    }

    /// Looks at these subjects, too, from now on, under a name that the caller chooses.
    pub fn expect(&mut self, name: &str, addresses: Vec<Subject>) {
        if self.addresses.insert(name.to_owned(), addresses).is_none() {
            self.order.push_back(name.to_owned());
        }
    }

    /// Looks at them first of all, before anything is waited for.
    pub(super) fn look_now(&mut self) {
        self.due = self.order.len();
    }

    /// Does not look at them any more.
    pub fn forget(&mut self, name: &str) {
        self.addresses.remove(name);
    }

    /// The next end: republished by the server, or found. One that is found is found again until it is forgotten.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<StoredEvent, BusError> {
        loop {
            if let Some(event) = &self.pending {
                let body = reader::whole_body(&self.core, event).await?;
                if let Some(event) = self.pending.take() {
                    return Ok(StoredEvent { body, ..event });
                }
            }
            if let Some(Some(message)) = self.streams.next().now_or_never() {
                self.take(message);
                continue;
            }
            if self.due > 0 {
                if let Some(found) = self.look().await? {
                    return Ok(found);
                }
                continue;
            }
            tokio::select! {
                message = self.streams.next() => match message {
                    Some(message) => self.take(message),
                    None => return Err(unavailable("hearing of ends: the connection is closed")),
                },
                // What was republished meanwhile was missed.
                Ok(()) = self.generation.changed() => self.due = self.order.len(),
                () = tokio::time::sleep_until(self.next_look) => {
                    self.due = self.order.len().min(MOST_AT_ONCE);
                    self.between = (self.between * 2).min(LOOK_AGAIN.1);
                    self.next_look = Instant::now() + self.between;
                }
            }
        }
    }

    /// Looks at the next workflow.
    async fn look(&mut self) -> Result<Option<StoredEvent>, BusError> {
        let Some(name) = self.order.front().cloned() else {
            self.due = 0;
            return Ok(None);
        };
        let found = match self.addresses.get(&name) {
            Some(addresses) => first_of(&self.core, addresses).await,
            None => Ok(None),
        };
        // Nothing is moved before the answer is there, so that a cancelled look is made again.
        self.due -= 1;
        self.order.pop_front();
        if self.addresses.contains_key(&name) {
            self.order.push_back(name);
        }
        match found {
            Ok(found) => Ok(found.filter(|found| self.since.is_none_or(|since| found.stored_at >= since))),
            Err(error @ (BusError::Forbidden(_) | BusError::NotSetUp(_))) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "an end was not looked up");
                self.due = 0;
                self.next_look = Instant::now() + AFTER_FAILURE;
                Ok(None)
            }
        }
    }

    fn take(&mut self, message: Message) {
        let stored = reader::republished(message);
        self.pending = stored.filter(|event| !foreign::is_foreign(&self.core, event));
    }
}

async fn first_of(core: &Core, addresses: &[Subject]) -> Result<Option<StoredEvent>, BusError> {
    for address in addresses {
        if let Some(end) = reader::last(core, address).await? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}
