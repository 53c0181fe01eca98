//! What a database knows of the namespaces that use it: which one it belongs to, and which workers use it with which log.

use std::time::Duration;

use throughline_actors::ports::store::StoreError;

use super::{Database, DatabaseError};
use crate::system::host_name;

/// A worker of another log counts for this long after its last sign of life, by the database's clock.
pub const WORKER_COUNTS_FOR: Duration = Duration::from_mins(1);

/// The calls that a worker can make count for this long after its last sign of life: three of these may be lost.
pub const CALLS_COUNT_FOR: Duration = Duration::from_secs(35);

/// A sign of life: this worker uses this database with this log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Its name, which no other process has: host, process id and a random number.
    pub worker: String,
    /// Which log: no other one has the same name, and one that was deleted and made again has another.
    pub log: String,
    /// How many calls of models it can make at once.
    pub calls: u32,
}

/// A worker that uses the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its name.
    pub worker: String,
    /// How long ago it gave its last sign of life.
    pub seen_ago: Duration,
}

impl Stranger {
    /// Whether it ran on this machine and does not any more; of others that is not known.
    pub fn is_gone(&self) -> bool {
        let mut parts = self.worker.rsplitn(3, ':');
        let (Some(_), Some(pid), Some(host)) = (parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let processes = std::path::Path::new("/proc");
        host == host_name() && processes.join("self").exists() && !processes.join(pid).exists()
    }
}

/// What a database knows of a namespace that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The same as in the log.
    pub id: String,
    /// Where the namespace's rows went, if they were copied: then they are not used here.
    pub copied: Option<CopiedTo>,
}

/// Where a namespace's rows went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedTo {
    /// The other database.
    pub place: String,
    /// Whether everything is there.
    pub is_complete: bool,
}

/// What a look at a database that changes nothing shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peeked {
    /// There is no such file yet.
    Missing,
    /// It has no identity of this namespace.
    Nothing,
    /// It has this one.
    Identity(Identity),
}

impl Database {
    /// The namespace's identity, if this database has one.
    pub async fn identity(&self, namespace: &str) -> Result<Option<Identity>, StoreError> {
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

    /// How many calls of models all workers of this log can make at once that gave a sign of life within
    /// [`CALLS_COUNT_FOR`]. A worker of an earlier version, which does not say, counts as `own`.
    pub async fn calls(&self, namespace: &str, log: &str, own: u32) -> Result<u32, StoreError> {
        let calls = match self {
            Self::Sqlite(store) => store.calls(namespace, log, own).await?,
            Self::Postgres(store) => store.calls(namespace, log, own).await?,
        };
        Ok(u32::try_from(calls.max(0)).unwrap_or(u32::MAX))
    }

    /// The workers that used the namespace's tables within [`WORKER_COUNTS_FOR`], with whichever log.
    pub async fn workers(&self, namespace: &str) -> Result<Vec<Stranger>, StoreError> {
        match self {
            Self::Sqlite(store) => store.workers(namespace).await,
            Self::Postgres(store) => store.workers(namespace).await,
        }
    }

    /// Notes that the namespace's rows are being copied to `place`, unless that is noted of another place; what is noted
    /// then.
    pub async fn begin_copy(&self, namespace: &str, place: &str) -> Result<CopiedTo, StoreError> {
        match self {
            Self::Sqlite(store) => store.begin_copy(namespace, place).await,
            Self::Postgres(store) => store.begin_copy(namespace, place).await,
        }
    }

    /// Notes that the copy that was begun is complete.
    pub async fn complete_copy(&self, namespace: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.complete_copy(namespace).await,
            Self::Postgres(store) => store.complete_copy(namespace).await,
        }
    }

    /// Makes what is left of a namespace whose rows were copied a database of its own, with this identity.
    pub async fn renew_identity(&self, namespace: &str, identity: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.renew_identity(namespace, identity).await,
            Self::Postgres(store) => store.renew_identity(namespace, identity).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_of_this_machine_that_has_ended_does_not_count() {
        let is_gone =
            |worker: &str| Stranger { worker: worker.to_owned(), seen_ago: Duration::ZERO }.is_gone();
        let here = host_name();
        assert!(!is_gone(&format!("{here}:{}:0", std::process::id())));
        // Larger than any process id of Linux.
        assert!(is_gone(&format!("{here}:4194305:0")) || !std::path::Path::new("/proc/self").exists());
        assert!(!is_gone("elsewhere:4194305:0"));
        assert!(!is_gone("nonsense"));
    }
}
