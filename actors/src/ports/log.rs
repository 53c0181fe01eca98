//! The event log, as retention sees it.
//!
//! Obligations of an implementation, checked by `ports::contract::log`:
//! - [`Log::fill`] names no sequence as free that a stage has not settled, and none whose dead-lettering is still to come.
//! - [`Log::purge`] removes what lies below, and nothing else; a second purge changes nothing.
//! - [`Log::finished_from`] names results of workflows whose end is in the log, ends that are old enough, and nothing else;
//!   [`Log::remove`] removes what it is asked to, and a second time nothing.
//! - [`Log::release_bodies`] removes no body that a message of the log names.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use throughline_schemas::{StageName, Timestamp};

use super::{archive::Archive, bus::BusError};

/// How full the log is, and from where on stages still need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Now, by the server's clock.
    pub now: Timestamp,
    /// Sequence of the first message; of an empty log that of the next one.
    pub first: u64,
    /// Sequence of the last message, stored or removed.
    pub last: u64,
    /// Messages that are stored.
    pub messages: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// What they may take; `None`: no limit.
    pub max_bytes: Option<u64>,
    /// The first message that a stage has not settled, or that waits to be dead-lettered, and whose it is. `None`:
    /// everything up to `last` is settled.
    pub needed: Option<(u64, StageName)>,
    /// The streams beside the log, which have limits of their own.
    pub others: Vec<Room>,
}

/// What [`Room::holds`] calls the store of large bodies.
pub const BODIES: &str = "bodies";

/// How full one of the other streams is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What it holds: `dead_letters`, `bodies`, `claims`, `advisories`.
    pub holds: &'static str,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// What it may take; `None`: no limit.
    pub max_bytes: Option<u64>,
}

/// What came of removing large bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// Bodies that were removed.
    pub bodies: u64,
    /// What they took, in bytes.
    pub bytes: u64,
    /// Where it was not enough: the log has to begin here or later before as much as was asked for can go, because what
    /// lies below names the bodies that are next.
    pub needs_log_from: Option<u64>,
}

/// What is removed, and where it has been kept. The last one stays where readers of the log can see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Everything below this sequence is gone.
    pub before: u64,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// The archive that holds the last of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// The event log.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Sequence of the last message, stored or removed: [`Fill::last`] without the rest, which costs more to find out.
    async fn last(&self) -> Result<u64, BusError>;
    /// How full it is, and what is still needed. The stages' positions are read when this is called, not before.
    async fn fill(&self) -> Result<Fill, BusError>;
    /// For how long the first message at this sequence or behind it has been stored, by the server's clock; `None` if there
    /// is none.
    async fn age_at(&self, sequence: u64) -> Result<Option<Duration>, BusError>;
    /// Sequence of the first message that was stored within `age`, by the server's clock; that of the next message if
    /// all are older.
    async fn first_within(&self, age: Duration) -> Result<u64, BusError>;
    /// Removes every message below a sequence, and keeps on record that it did. How many were removed.
    async fn purge(&self, purge: &Purge) -> Result<u64, BusError>;
    /// Messages from this sequence on that are not needed: see [`crate::policy::thinning`]. In their order; about as many
    /// as take `bytes`, of a limited part of the log. Ends are among them that were stored before `ended_before`, by the
    /// server's clock.
    async fn finished_from(
        &self,
        sequence: u64,
        bytes: u64,
        ended_before: Timestamp,
    ) -> Result<Vec<u64>, BusError>;
    /// Removes these messages. How many were there.
    async fn remove(&self, sequences: &[u64]) -> Result<u64, BusError>;
    /// Removes large bodies that no message of the log and no dead letter can name, the oldest first, until `bytes` are
    /// free; a limited number of them in one call. What was stored just now stays: the event that names it may be about to
    /// be published.
    async fn release_bodies(&self, bytes: u64) -> Result<Released, BusError>;
}

/// What keeps room in the log, and what it can keep the past in.
#[derive(Clone)]
pub struct Keeper {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where messages are written before they are removed; `None`: nowhere.
    pub archive: Option<Arc<dyn Archive>>,
}
