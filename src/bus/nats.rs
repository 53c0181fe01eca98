//! `JetStream` behind the [`Bus`] port.
//!
//! One limits-retention stream per namespace is the log; one durable pull consumer per stage is that stage's
//! cursor. [`topology::setup`] creates them, everything else only binds to them.

mod archive_bucket;
mod batch;
mod claims;
mod complaints;
mod connection;
mod dead;
mod dead_lettering;
mod deployment;
mod end_watch;
mod ends;
mod erase;
mod error;
mod foreign;
mod headers;
mod import;
mod large_bodies;
mod live;
mod live_frames;
mod look;
mod lookup;
mod max_deliveries;
mod names;
mod objects;
mod probe;
mod publish;
mod publish_input;
mod pull;
mod reader;
mod receipt;
mod release;
mod requests;
mod retention;
mod roles;
mod settings;
mod stall_detector;
mod stream_api;
mod sweep;
pub mod topology;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use throughline_actors::ports::bus::{
    AttemptLog, Broadcast, Bus, BusError, Claim, Claimed, DeadLetter, DeadLetters, Delivery, DeliveryState,
    EventLog, Inbox, Inboxes, Latest, Position, Published,
};
use throughline_schemas::{
    Event, EventType, Namespace, SessionId, StageName, Subject, Timestamp, WorkflowId,
};

pub use archive_bucket::{ArchiveBucket, InBucket};
pub use connection::{MIN_SERVER, ServerFacts};
pub use dead::Repeat;
pub use deployment::Deployment;
pub use end_watch::EndWatch;
pub use erase::bodies_of;
pub use error::ConnectError;
pub use import::{ImportError, Importer};
pub use live_frames::LiveFrames;
pub use look::{AccountState, LogState, StageState};
pub use names::Names;
pub use publish_input::{InputMessage, PublishedInput};
pub use reader::{EventReader, Log, ReadRequest, StoredEvent};
pub use roles::{Needs, Permissions, Role};
pub use settings::{NatsAuth, NatsSettings, Url};

use connection::Connection;
use error::unavailable_because;

/// A connection to NATS, with what every part of the adapter shares. Cheap to clone.
#[derive(Clone)]
pub struct NatsBus {
    core: Arc<Core>,
}

/// What inboxes, receipts and readers share.
struct Core {
    settings: NatsSettings,
    names: Names,
    connection: Connection,
    bodies: large_bodies::Bodies,
    live: live::Live,
    stall_detector: stall_detector::StallDetector,
    /// Inboxes that were dropped and are still giving back what they hold.
    closing: tokio_count::Count,
}

/// Counts running tasks, and lets one wait until there are none.
mod tokio_count {
    use tokio::sync::watch;

    #[derive(Clone)]
    pub(super) struct Count(watch::Sender<usize>);

    /// Counts as one running task until dropped.
    pub(super) struct Counted(watch::Sender<usize>);

    impl Count {
        pub(super) fn new() -> Self {
            Self(watch::Sender::new(0))
        }

        pub(super) fn enter(&self) -> Counted {
            self.0.send_modify(|n| *n += 1);
            Counted(self.0.clone())
        }

        pub(super) async fn wait_for_none(&self) {
            // The error would mean that the sender is gone, but `self` holds it.
            let _ = self.0.subscribe().wait_for(|n| *n == 0).await;
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.send_modify(|n| *n = n.saturating_sub(1));
        }
    }
}

impl NatsBus {
    /// Connects, for at most `settings.connect_within`, and checks that the server is new enough and has
    /// `JetStream`. Streams and consumers need not exist yet.
    pub async fn connect(settings: NatsSettings) -> Result<Self, ConnectError> {
        let connection = Connection::open(&settings).await?;
        let names = Names::new(&settings.namespace);
        Ok(Self {
            core: Arc::new(Core {
                bodies: large_bodies::Bodies::new(names.bodies().to_owned()),
                live: live::Live::start(connection.client.clone()),
                stall_detector: stall_detector::StallDetector::start(settings.ack_wait),
                names,
                connection,
                settings,
                closing: tokio_count::Count::new(),
            }),
        })
    }

    /// The namespace that every subject of this bus begins with.
    pub fn namespace(&self) -> &Namespace {
        &self.core.settings.namespace
    }

    /// Names of streams, consumers and the bucket.
    pub fn names(&self) -> &Names {
        &self.core.names
    }

    /// What the server says of itself.
    pub fn server(&self) -> ServerFacts {
        self.core.connection.facts()
    }

    /// What this server makes of large events, if it takes less at once than servers usually do.
    pub fn small_payload(&self) -> Option<String> {
        large_bodies::small_payload(&self.core)
    }

    /// The client, for what is not the bus's business (live tokens, requests to the server's monitoring).
    pub fn client(&self) -> &async_nats::Client {
        &self.core.connection.client
    }

    /// Does `work`, unless the server forbids something meanwhile that mentions `part` of a subject. Without this a
    /// forbidden request ends with its time limit.
    pub async fn unless_forbidden<T>(
        &self,
        part: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, BusError> {
        self.core.connection.complaints().unless_forbidden(part, work).await
    }

    /// Publishes what a user says, and returns when the stream has it; an outage of a few seconds is outlasted. Cancelled,
    /// it may have been stored.
    pub async fn publish_input(&self, message: &InputMessage) -> Result<PublishedInput, BusError> {
        publish_input::input(&self.core, message).await
    }

    /// The live frames of a workflow from now on. Open it before publishing, and none is missed.
    pub async fn live_frames(&self, workflow: &WorkflowId) -> Result<LiveFrames, BusError> {
        LiveFrames::open(&self.core, workflow).await
    }

    /// What the event log is like as a whole.
    pub async fn log_state(&self) -> Result<LogState, BusError> {
        look::log(&self.core).await
    }

    /// What the account uses, and may use.
    pub async fn account_state(&self) -> Result<AccountState, BusError> {
        look::account(&self.core).await
    }

    /// Where the consumer of a stage stands.
    pub async fn stage_state(&self, stage: StageName) -> Result<StageState, BusError> {
        look::stage(&self.core, stage).await
    }

    /// Whether the server refuses requests with fields that it does not know; `None` if that cannot be asked.
    pub async fn is_strict(&self) -> Option<bool> {
        look::is_strict(&self.core).await
    }

    /// Reads stored events or dead letters in the order of the stream.
    pub async fn read(&self, request: ReadRequest) -> Result<EventReader, BusError> {
        EventReader::open(Arc::clone(&self.core), request).await
    }

    /// Everything stored of one workflow, in the order of the stream; quick in a log of any size. `filter` is one of
    /// [`Namespace::events_of_workflow`], or narrower; inputs on the subject without tokens are not among it. `None`
    /// if more matches than one workflow has: then it has to be read.
    pub async fn few(&self, filter: &str) -> Result<Option<Vec<StoredEvent>>, BusError> {
        lookup::few(&self.core, filter).await
    }

    /// How this workflow of this session ended or will end: a stored end first, then one to come. Open it before publishing
    /// and nothing is missed, not even over reconnects. Needs no consumer.
    pub async fn ends_of(&self, session: &SessionId, workflow: &WorkflowId) -> Result<EndWatch, BusError> {
        let ns = self.namespace();
        let addresses: Vec<_> = Subject::ends_of(session, workflow).collect();
        let filters = addresses.iter().map(|address| address.stored(ns)).collect();
        let mut watch = EndWatch::open(Arc::clone(&self.core), filters, None).await?;
        watch.expect(workflow.as_str(), addresses);
        watch.look_now();
        Ok(watch)
    }

    /// Ends of all workflows of the namespace as they are stored; those that are expected of the watch are also looked for,
    /// as far as they were stored from `since` on. Needs no consumer.
    pub async fn all_ends(&self, since: Option<Timestamp>) -> Result<EndWatch, BusError> {
        let filters = EventType::ends().map(|end| self.namespace().stored_of(end)).collect();
        EndWatch::open(Arc::clone(&self.core), filters, since).await
    }

    /// The last stored event of an address, with its body.
    pub async fn last(&self, subject: &Subject) -> Result<Option<StoredEvent>, BusError> {
        reader::last(&self.core, subject).await
    }

    /// The latest event of a workflow other than its input, and when it was stored: how far the workflow has come. Asks
    /// only for what readers of the log are allowed.
    pub async fn latest_step(
        &self,
        session: &SessionId,
        workflow: &WorkflowId,
    ) -> Result<Option<(EventType, Timestamp)>, BusError> {
        lookup::latest_step(&self.core, session, workflow).await
    }

    /// Whether anything is stored of a workflow.
    pub async fn has_any(&self, workflow: &WorkflowId) -> Result<bool, BusError> {
        self.has(&self.namespace().events_of_workflow(None, workflow)).await
    }

    /// Whether the end of a workflow is stored.
    pub async fn has_ended(&self, workflow: &WorkflowId) -> Result<bool, BusError> {
        for event_type in EventType::ends() {
            if self.has(&self.namespace().events_of_workflow(Some(event_type), workflow)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has(&self, filter: &str) -> Result<bool, BusError> {
        Ok(requests::last_of_subject(&self.core, self.core.names.events(), filter).await?.is_some())
    }

    /// The stored message of a sequence, if it is still there.
    pub async fn stored_at(&self, sequence: u64) -> Result<Option<StoredEvent>, BusError> {
        reader::at(&self.core, self.core.names.events(), sequence).await
    }

    /// Completes when this connection is of no more use: the client has given it up, or a task of its own has ended.
    pub async fn ended(&self) {
        tokio::select! {
            () = self.core.connection.closed() => {}
            () = self.core.live.ended() => {}
        }
    }

    /// Waits, for at most `limit`, until dropped inboxes have given back what they held and everything written is
    /// with the server; then closes the connection.
    pub async fn close(&self, limit: Duration) {
        let orderly = async {
            self.core.closing.wait_for_none().await;
            let client = &self.core.connection.client;
            if let Err(error) = client.flush().await {
                tracing::debug!(%error, "flush before closing failed");
            }
            if let Err(error) = client.drain().await {
                tracing::debug!(%error, "drain failed");
            }
            self.core.connection.closed().await;
        };
        if tokio::time::timeout(limit, orderly).await.is_err() {
            tracing::warn!(?limit, "the NATS connection did not close in time");
        }
    }
}

#[async_trait]
impl Inboxes for NatsBus {
    async fn open(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        Ok(Box::new(pull::NatsInbox::open(Arc::clone(&self.core), stage).await?))
    }

    async fn body(&self, delivery: &Delivery) -> Result<Bytes, BusError> {
        match &delivery.kept {
            Some(kept) => self.core.bodies.fetch(&self.core, &kept.name).await,
            None => Ok(delivery.body.clone()),
        }
    }

    async fn open_undeliverable(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError> {
        Ok(Box::new(max_deliveries::UndeliverableInbox::open(Arc::clone(&self.core), stage).await?))
    }
}

#[async_trait]
impl EventLog for NatsBus {
    async fn publish(&self, event: &Event) -> Result<Published, BusError> {
        publish::event(&self.core, event).await
    }

    async fn exists(&self, subject: &Subject) -> Result<bool, BusError> {
        let subject = subject.live(self.namespace());
        let standing = foreign::standing(&self.core, self.core.names.events(), &subject).await?;
        Ok(standing == foreign::Standing::Event)
    }

    async fn stored_at(&self, subject: &Subject) -> Result<Option<Timestamp>, BusError> {
        sweep::stored_at(&self.core, subject).await
    }

    async fn recorded(&self, subject: &Subject) -> Result<Option<Bytes>, BusError> {
        let subject = subject.live(self.namespace());
        let found = requests::last_of_subject(&self.core, self.core.names.events(), &subject).await?;
        let event = found.and_then(reader::direct).filter(|event| !foreign::is_foreign(&self.core, event));
        let Some(event) = event else { return Ok(None) };
        Ok(Some(reader::whole_body(&self.core, &event).await?))
    }

    async fn position(&self) -> Result<Position, BusError> {
        sweep::position(&self.core).await
    }

    async fn latest(&self, session: &SessionId, workflow: &WorkflowId) -> Result<Option<Latest>, BusError> {
        sweep::latest(&self.core, session, workflow).await
    }

    async fn publish_again(&self, subject: &Subject, sequence: u64) -> Result<Published, BusError> {
        sweep::publish_again(&self.core, subject, sequence).await
    }

    async fn ends_from(
        &self,
        sequence: u64,
        most: u64,
    ) -> Result<throughline_actors::ports::bus::Ends, BusError> {
        ends::from(&self.core, sequence, most).await
    }
}

#[async_trait]
impl DeadLetters for NatsBus {
    async fn dead_letter(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<(), BusError> {
        dead_lettering::dead_letter(&self.core, delivery, letter).await
    }
}

#[async_trait]
impl DeliveryState for NatsBus {
    async fn claim(&self, stage: StageName, sequence: u64) -> Result<Option<Claimed>, BusError> {
        claims::read(&self.core, stage, sequence).await
    }

    async fn set_claim(
        &self,
        stage: StageName,
        sequence: u64,
        claim: &Claim,
        revision: u64,
    ) -> Result<Published, BusError> {
        claims::write(&self.core, stage, sequence, claim, revision).await
    }

    async fn attempt_log(&self, stage: StageName, sequence: u64) -> Result<Option<AttemptLog>, BusError> {
        claims::read_attempt_log(&self.core, stage, sequence).await
    }

    async fn keep_attempt_log(
        &self,
        stage: StageName,
        sequence: u64,
        attempt_log: &AttemptLog,
    ) -> Result<(), BusError> {
        claims::keep_attempt_log(&self.core, stage, sequence, attempt_log).await
    }
}

#[async_trait]
impl Broadcast for NatsBus {
    async fn announce(&self, topic: &str, body: Bytes) -> Result<(), BusError> {
        requests::send(&self.core, self.namespace().control(topic).into(), body).await
    }

    fn live(&self, workflow: &WorkflowId, frame: Bytes) -> bool {
        self.core.live.send(self.namespace().live_frames(workflow), frame)
    }

    async fn announced_on(&self, topic: &str) -> Result<BoxStream<'static, Bytes>, BusError> {
        let subject = self.namespace().control(topic);
        let messages = self.client().subscribe(subject.clone()).await;
        let messages =
            messages.map_err(|error| unavailable_because(format!("listening on {subject}"), error))?;
        Ok(messages.map(|message| message.payload).boxed())
    }
}

#[async_trait]
impl Bus for NatsBus {
    fn is_connected(&self) -> bool {
        self.core.connection.is_up()
    }

    async fn probe(&self) -> Result<(), BusError> {
        probe::probe(&self.core).await
    }
}
