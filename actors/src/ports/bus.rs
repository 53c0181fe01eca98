//! The event bus: durable, at least once, acknowledged delivery by delivery.
//!
//! Obligations of an implementation, checked by `ports::contract::bus`:
//! - [`Bus::publish`] returns only when the event is durable, and is idempotent by (workflow, event type) for as
//!   long as the event is retained.
//! - A delivery that is neither settled nor kept alive by [`Receipt::progress`] comes again.
//! - [`Inbox::next`] never hands out more deliveries than were granted.
//! - Inputs go to one inbox at a time, the pinned one. An inbox that takes over hands out, in the order of the stream,
//!   whatever was delivered and not settled, before anything newer; it may come again after the ack wait all the same.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use throughline_schemas::{
    Event, EventKey, FailureCode, SessionId, StageName, Subject, Timestamp, WorkflowId,
    event::generation::Attempt,
};
use tokio::time::Instant;

use super::{Classify, Fault, Health};
use crate::ports::lease::Lease;

/// Why the bus could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// There is no connection, or no answer in time. A publish may have happened.
    #[error("the event bus did not answer: {context}")]
    Unavailable {
        /// What was being done.
        context: String,
        /// The client's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A stream, its account or its server has no room; publishing works again when there is. The text says where, and
    /// what to do.
    #[error("there is no room: {0}")]
    Full(String),
    /// The same of the store for large bodies: small events are still taken.
    #[error("there is no room for a large body: {0}")]
    BodiesFull(String),
    /// The event is larger than the server accepts.
    #[error("the event is {bytes} bytes, more than the server accepts")]
    TooLarge {
        /// Size of the message.
        bytes: usize,
    },
    /// Stream or consumer is missing, or not as `throughline setup` makes it.
    #[error("{0}; run `throughline setup`")]
    NotSetUp(String),
    /// The server forbids it.
    #[error("the server does not permit it: {0}; check the user's permissions")]
    Forbidden(String),
    /// The event could not be written as JSON.
    #[error(transparent)]
    Encode(#[from] throughline_schemas::EncodeError),
}

/// Class of [`BusError::BodiesFull`].
pub const BODIES_FULL: &str = "bodies_full";

impl Classify for BusError {
    fn fault(&self) -> Fault {
        match self {
            Self::Unavailable { .. } => Fault::Unknown,
            Self::Full(_) | Self::BodiesFull(_) | Self::NotSetUp(_) | Self::Forbidden(_) => {
                Fault::Transient { wait_at_least: None }
            }
            Self::TooLarge { .. } | Self::Encode(_) => Fault::Permanent,
        }
    }

    fn health(&self) -> Health {
        match self {
            Self::Unavailable { .. }
            | Self::Full(_)
            | Self::BodiesFull(_)
            | Self::NotSetUp(_)
            | Self::Forbidden(_) => Health::Failed,
            Self::TooLarge { .. } | Self::Encode(_) => Health::Answered,
        }
    }

    fn class(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Full(_) => "full",
            Self::BodiesFull(_) => BODIES_FULL,
            Self::TooLarge { .. } => "too_large",
            Self::NotSetUp(_) => "not_set_up",
            Self::Forbidden(_) => "permission_denied",
            Self::Encode(_) => "encode",
        }
    }
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It is stored now.
    New,
    /// An event of this workflow and type was there already; nothing was stored.
    Already,
}

/// One delivery of a message.
#[derive(Clone)]
pub struct Delivery {
    /// Subject it was published on.
    pub subject: String,
    /// Headers, in the publisher's spelling.
    pub headers: Vec<(String, String)>,
    /// Body; of one that is kept elsewhere only a reference.
    pub body: Bytes,
    /// Where the body is kept, if not here; [`Bus::body`] fetches it.
    pub kept: Option<KeptBody>,
    /// Its sequence in the event stream.
    pub sequence: u64,
    /// How often it has been delivered, this time included.
    pub delivered: u32,
    /// Its event may have been worked on although this is its first delivery: its consumer may have been recreated or
    /// rewound, or its stream restored. Adapters say false; the stage that takes it knows better.
    pub maybe_worked_on: bool,
    /// When the stream stored it.
    pub published_at: Timestamp,
    /// When it came into this process. How long it has been somewhere in here counts, too.
    pub received_at: Instant,
    /// How to answer for it.
    pub receipt: Arc<dyn Receipt>,
}

/// A body that is not in its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptBody {
    /// Its name there.
    pub name: String,
    /// Its size in bytes, as its message says; the largest there may be where it does not say.
    pub bytes: u64,
}

impl Delivery {
    /// The size of the body in bytes, wherever it is.
    pub fn body_bytes(&self) -> u64 {
        self.kept.as_ref().map_or(self.body.len() as u64, |kept| kept.bytes)
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, lower_case: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(lower_case))
            .map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("subject", &self.subject)
            .field("sequence", &self.sequence)
            .field("delivered", &self.delivered)
            .finish_non_exhaustive()
    }
}

/// How a delivery ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Its outcome is durable.
    Acknowledged,
    /// It should come again, not before `after`.
    Retried {
        /// The delay; the server redelivers at once on zero.
        after: Duration,
    },
    /// It must not come again; its dead letter is stored.
    Terminated {
        /// On one line.
        reason: String,
    },
}

/// Answers for one delivery.
#[async_trait]
pub trait Receipt: Send + Sync + 'static {
    /// Ends the delivery. Not waiting for the server's answer is allowed: a lost answer means a redelivery.
    async fn settle(&self, settlement: Settlement) -> Result<(), BusError>;
    /// Says that the work goes on, which restarts the redelivery timer. `Ok` only when the server has answered: a
    /// lease is counted from it.
    async fn progress(&self) -> Result<(), BusError>;
    /// For how long the delivery certainly belongs to this process, if its stage keeps count of that.
    fn lease(&self) -> Option<&Lease> {
        None
    }
}

/// Who works on a message that came more than once, and what became of earlier attempts. Kept beside the stream, since
/// the server counts deliveries and cannot distinguish a death from a hand-back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// Which delivery is being handled, or was last.
    pub delivery: u32,
    /// Which handling of it made the claim: a random number, since messages that were taken over come with a delivery
    /// number that others had before.
    pub handling: u64,
    /// It is being handled, unless its process died.
    pub open: bool,
    /// How often a worker panicked, or was killed, while it handled this message.
    pub panics: u32,
    /// How often a process began to handle this message and vanished.
    pub vanished: u32,
}

/// A claim as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// What it says.
    pub claim: Claim,
    /// Which replacement it is; zero if the message is not claimed.
    pub revision: u64,
}

/// The attempts of earlier deliveries of a message, kept beside the stream before a hand-back, so that their calls and
/// what these cost are on record in the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptLog {
    /// The delivery that wrote it.
    pub delivery: u32,
    /// Deliveries up to that one of whose attempts nothing is known.
    pub unknown: u32,
    /// The attempts of the others, in order.
    pub attempts: Vec<Attempt>,
}

/// A message that must not be handled again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where to file it; `None` if the message names no workflow.
    pub subject: Option<Subject>,
    /// The stage that stores it.
    pub stage: StageName,
    /// Why, for a machine.
    pub code: FailureCode,
    /// Why, for a person.
    pub error: String,
    /// When.
    pub at: Timestamp,
}

/// How far the log has been worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// Sequence of the last event.
    pub last: u64,
    /// By stage, the sequence up to which all its deliveries are settled.
    pub settled: BTreeMap<StageName, u64>,
    /// What time the server has, by the clock that says when events were stored; `None` if it does not say.
    pub now: Option<Timestamp>,
}

/// The latest event of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// Which one.
    pub key: EventKey,
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored, by the server's clock.
    pub stored_at: Timestamp,
}

/// Ends in the order of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// The encoded events, whole.
    pub ends: Vec<Bytes>,
    /// Every end up to this place of the log is among them, or came before.
    pub read_to: u64,
}

/// One stage's deliveries in this process.
#[async_trait]
pub trait Inbox: Send {
    /// Allows `n` more deliveries.
    async fn grant(&mut self, n: usize) -> Result<(), BusError>;
    /// Waits for the next delivery. Cancel-safe. An error means that this inbox is of no more use; interruptions
    /// of the connection are ridden out.
    async fn next(&mut self) -> Result<Delivery, BusError>;
}

/// What stages are given to work on.
#[async_trait]
pub trait Inboxes: Send + Sync + 'static {
    /// Opens a stage's deliveries; none come before they are granted.
    async fn open(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError>;
    /// Opens the messages of a stage that the server has given up on: delivered as often as it allows, and never
    /// settled. Their deliveries have the original's bytes, headers, subject, sequence and count; settling one is
    /// about its dead-lettering, and does not bring the original back.
    async fn open_undeliverable(&self, stage: StageName) -> Result<Box<dyn Inbox>, BusError>;
    /// The body of a delivery, fetched if it is kept elsewhere.
    async fn body(&self, delivery: &Delivery) -> Result<Bytes, BusError> {
        Ok(delivery.body.clone())
    }
}

/// The log of events: what is stored, once each, and in which order.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Makes an event durable, once.
    async fn publish(&self, event: &Event) -> Result<Published, BusError>;
    /// Whether an event of this address is stored.
    async fn exists(&self, subject: &Subject) -> Result<bool, BusError>;
    /// When the event at an address was stored, by the server's clock.
    async fn stored_at(&self, subject: &Subject) -> Result<Option<Timestamp>, BusError>;
    /// The event that is stored at an address, encoded.
    async fn recorded(&self, subject: &Subject) -> Result<Option<Bytes>, BusError>;
    /// The end of the log, and how far the stages behind the input stage are.
    async fn position(&self) -> Result<Position, BusError>;
    /// The latest event of a workflow, other than what its publisher said. Never older than what [`EventLog::position`] returned
    /// before.
    async fn latest(&self, session: &SessionId, workflow: &WorkflowId) -> Result<Option<Latest>, BusError>;
    /// Moves a stored event to the end of the log, so that its stage is given it again. `Already` if the event is
    /// not there any more, or another has been stored on its subject: another process was first.
    async fn publish_again(&self, subject: &Subject, sequence: u64) -> Result<Published, BusError>;
    /// The ends of workflows that are stored from a place of the log on, at most so many of each kind.
    async fn ends_from(&self, sequence: u64, most: u64) -> Result<Ends, BusError>;
}

/// Where messages go that must not be handled again.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Stores a dead letter: the original bytes and headers, and what was wrong. Idempotent by stage and sequence.
    async fn dead_letter(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<(), BusError>;
}

/// What is kept beside the log about deliveries: who works on a message, and what earlier deliveries called.
#[async_trait]
pub trait DeliveryState: Send + Sync + 'static {
    /// The claim on a message of a stage's consumer, by the message's sequence. It may be an older one than the last.
    async fn claim(&self, stage: StageName, sequence: u64) -> Result<Option<Claimed>, BusError>;
    /// Replaces the claim on a message, if it is still that of `revision` (zero: if there is none). `Already` if it is
    /// not, or if this very claim was stored by an earlier attempt.
    async fn set_claim(
        &self,
        stage: StageName,
        sequence: u64,
        claim: &Claim,
        revision: u64,
    ) -> Result<Published, BusError>;
    /// The attempt log of a message of a stage's consumer, by the message's sequence.
    async fn attempt_log(&self, stage: StageName, sequence: u64) -> Result<Option<AttemptLog>, BusError>;
    /// Replaces the attempt log of a message. It is best effort: it may be gone later.
    async fn keep_attempt_log(
        &self,
        stage: StageName,
        sequence: u64,
        attempt_log: &AttemptLog,
    ) -> Result<(), BusError>;
}

/// Announcements and live frames: they reach who listens at the moment, and are not stored.
#[async_trait]
pub trait Broadcast: Send + Sync + 'static {
    /// Publishes on `{ns}.control.{topic}`; not durable, and not an error without listeners.
    async fn announce(&self, topic: &str, body: Bytes) -> Result<(), BusError>;
    /// Publishes on `{ns}.live.{workflow}`; not durable, never waits, and keeps the order of one caller. Whether
    /// the frame was taken: while the connection is down or slow, frames are dropped.
    fn live(&self, workflow: &WorkflowId, frame: Bytes) -> bool;
    /// What is announced on a topic from now on, as far as the connection is up.
    async fn announced_on(&self, topic: &str) -> Result<BoxStream<'static, Bytes>, BusError>;
}

/// The event bus: all of its parts, and how it is.
#[async_trait]
pub trait Bus: Inboxes + EventLog + DeadLetters + DeliveryState + Broadcast {
    /// Whether the connection is up at this moment.
    fn is_connected(&self) -> bool;
    /// Answers if everything that events and letters are kept in is there, answers, and has room; as far as that can be
    /// found out without publishing anything.
    async fn probe(&self) -> Result<(), BusError> {
        Ok(())
    }
}
