//! The store in one SQLite file, which several processes may share.
//!
//! A commit costs a flush of the disk, so all writes of a process go through one task that commits whatever has
//! queued while the commit before it ran: many operations, one flush. Reads are gathered in the same way.

mod answers;
mod batch;
mod code;
mod file;
mod namespaces;
mod reader;
mod turns;
mod turnstile;
mod writer;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryFutureExt as _;
use serde_json::{Map, Value};
use sqlx::SqlitePool;
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, EndedTurn, Failing, Interaction, Opening, RunningQuery, RunningTurn, Store,
    StoreError,
};
use throughline_schemas::{SessionId, UserId, WorkflowId, event::context::Context};
use tokio::time::timeout;

use self::file::DatabaseFile;
pub(super) use self::{code::kind, namespaces::peek};
use super::{error, queues::Queues};

/// Longest time that one call may take, waiting in queues included. After that its write may still happen.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that SQLite waits for the lock of another process.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long this store waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`REQUEST_TIMEOUT`], its default.
    pub request: Duration,
    /// See [`BUSY_TIMEOUT`], its default.
    pub busy: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: REQUEST_TIMEOUT, busy: BUSY_TIMEOUT }
    }
}

/// The store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    file: DatabaseFile,
    queues: Queues,
    readers: SqlitePool,
    limits: Limits,
}

impl SqliteStore {
    /// Opens the database, creates it if there is none and brings its tables up to date. Safe in several
    /// processes at once.
    ///
    /// `url` is `sqlite://relative.db`, `sqlite:///absolute.db` or the same without the slashes; an in-memory
    /// database is refused, since reads and writes have connections of their own. `max_connections` bounds the
    /// connections that read (at least one); one more writes.
    pub async fn open(url: &str, max_connections: u32) -> Result<Self, StoreError> {
        Self::open_with(url, max_connections, Limits::default()).await
    }

    /// As [`Self::open`], with limits of one's own.
    pub async fn open_with(url: &str, max_connections: u32, limits: Limits) -> Result<Self, StoreError> {
        let file = DatabaseFile::new(url, limits)?;
        let connection = file.prepare().await?;
        let readers = file.readers(max_connections);
        let (queues, operations, questions) = Queues::new(limits.request);
        tokio::spawn(writer::run(file.clone(), connection, operations));
        tokio::spawn(reader::run(readers.clone(), questions));
        Ok(Self { file, queues, readers, limits })
    }

    /// Finishes the writes that are queued, folds the write-ahead log into the database and closes it. Every
    /// later call fails. Waits no longer than the request limit; what was not answered by then may not have
    /// been written.
    pub async fn close(&self) {
        let close = async {
            self.queues.finish().await;
            self.readers.close().await;
        };
        if timeout(self.limits.request, close).await.is_err() {
            tracing::warn!(
                "the database was not closed in time; its log is folded in when it is next opened"
            );
        }
    }

    /// Sets these preferences of a user and leaves the others.
    pub async fn set_preferences(
        &self,
        user: &UserId,
        preferences: &Map<String, Value>,
    ) -> Result<(), StoreError> {
        let set = self.file.set_preferences(user, preferences);
        self.queues.in_time("setting preferences", set).await
    }

    /// The user's preferences.
    pub async fn preferences(&self, user: &UserId) -> Result<Map<String, Value>, StoreError> {
        Ok(self.queues.context(user.as_str(), "", 0).await?.preferences)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.queues.admit(batch).await
    }

    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.queues.context(user.as_str(), session.as_str(), turns).await
    }

    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.queues.save(interaction).await
    }

    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.queues.fail(failing).await
    }

    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        const CONTEXT: &str = "listing running turns";
        let running = turns::running(&self.readers, &query);
        self.queues.in_time(CONTEXT, running.map_err(|e| error::from_sqlx(CONTEXT, e))).await
    }

    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        const CONTEXT: &str = "reading what a turn began with";
        let opening = turns::opening(&self.readers, workflow);
        self.queues.in_time(CONTEXT, opening.map_err(|e| error::from_sqlx(CONTEXT, e))).await
    }

    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        const CONTEXT: &str = "looking up the turns before these";
        let ended = turns::ended_before(&self.readers, places);
        self.queues.in_time(CONTEXT, ended.map_err(|e| error::from_sqlx(CONTEXT, e))).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.queues.ping().await
    }

    async fn ended(&self) {
        self.queues.ended().await;
    }
}
