//! What a database knows of the namespaces that use it: which one it belongs to, and which workers use it with which log.

use std::time::Duration;

use throughline_actors::ports::store::StoreError;

use super::{Database, DatabaseError};

/// A worker of another log counts for this long after its last sign of life, by the database's clock.
pub const WORKER_COUNTS_FOR: Duration = Duration::from_mins(1);

/// A sign of life: this worker uses this database with this log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Its name, which no other process has: host, process id and a random number.
    pub worker: String,
    /// Which log: no other one has the same name, and one that was deleted and made anew has another.
    pub log: String,
}

/// A worker that uses the database with another log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its name.
    pub worker: String,
    /// How long ago it gave its last sign of life.
    pub seen_ago: Duration,
}

/// What a look at a database that changes nothing tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peeked {
    /// There is no such file yet.
    Missing,
    /// It has no identity of this namespace.
    Nothing,
    /// It has this one.
    Identity(String),
}

impl Database {
    /// The namespace's identity, if this database has one.
    pub async fn identity(&self, namespace: &str) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(store) => store.identity(namespace).await,
            Self::Postgres(store) => store.identity(namespace).await,
        }
    }

    /// Gives the namespace this identity unless it has one here; the one that it has then. Safe in several processes.
    pub async fn claim_identity(&self, namespace: &str, proposed: &str) -> Result<String, StoreError> {
        match self {
            Self::Sqlite(store) => store.claim_identity(namespace, proposed).await,
            Self::Postgres(store) => store.claim_identity(namespace, proposed).await,
        }
    }

    /// Notes a sign of life, and tells which workers used the namespace's tables with another log within
    /// [`WORKER_COUNTS_FOR`].
    pub async fn beat(&self, namespace: &str, beat: &Beat) -> Result<Vec<Stranger>, StoreError> {
        match self {
            Self::Sqlite(store) => store.beat(namespace, beat).await,
            Self::Postgres(store) => store.beat(namespace, beat).await,
        }
    }

    /// The worker does not use the database any more.
    pub async fn leave(&self, namespace: &str, worker: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.leave(namespace, worker).await,
            Self::Postgres(store) => store.leave(namespace, worker).await,
        }
    }
}

/// The identity of a namespace in a database that is not changed: no file, no table and no row is made.
pub async fn peek(url: &str, namespace: &str) -> Result<Peeked, DatabaseError> {
    if url.starts_with("sqlite:") {
        Ok(super::sqlite::peek(url, namespace).await?)
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        Ok(super::postgres::peek(url, namespace).await?)
    } else {
        Err(DatabaseError::Unknown)
    }
}

/// Whether the end of a workflow is on record in a database that is not changed and has an identity of the namespace.
pub async fn peek_end(url: &str, namespace: &str, workflow: &str) -> Result<bool, DatabaseError> {
    if url.starts_with("sqlite:") {
        Ok(super::sqlite::peek_end(url, namespace, workflow).await?)
    } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        Ok(super::postgres::peek_end(url, namespace, workflow).await?)
    } else {
        Err(DatabaseError::Unknown)
    }
}

/// Seconds, as databases count them.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}
