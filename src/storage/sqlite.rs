//! The store in one SQLite file, which several processes may share.
//!
//! A commit costs a flush of the disk, so all writes of a process go through one task that commits whatever has
//! queued while the commit before it ran: many operations, one flush. Reads are gathered in the same way.

mod answers;
mod batch;
mod code;
mod copy;
mod erase;
mod file;
mod held;
mod look;
mod mend;
mod namespaces;
mod probe;
mod reader;
mod record;
mod rows;
mod turns;
mod write_lock;
mod writer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryFutureExt as _;
use serde_json::{Map, Value};
use sqlx::SqlitePool;
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
    ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
    TurnsQuery,
};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId, event::context::Context};
use tokio::time::timeout;

#[cfg(test)]
pub(super) use self::file::migrations;
pub(super) use self::{
    code::meaning,
    copy::fitting,
    look::{READS, lies_still, look},
    namespaces::{peek, peek_end},
    record::{has_lists, latest_turns, open_turns},
};
use self::{file::DatabaseFile, turns::Reading};
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
    /// processes at once. Nothing but what belongs to `namespace` is read or written.
    ///
    /// `url` is `sqlite://relative.db`, `sqlite:///absolute.db` or the same without the slashes; an in-memory
    /// database is refused, since reads and writes have connections of their own. `max_connections` bounds the
    /// connections that read (at least one); one more writes.
    pub async fn open(url: &str, max_connections: u32, namespace: &str) -> Result<Self, StoreError> {
        Self::open_with(url, max_connections, namespace, Limits::default()).await
    }

    /// As [`Self::open`], with limits of one's own.
    pub async fn open_with(
        url: &str,
        max_connections: u32,
        namespace: &str,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let file = DatabaseFile::new(url, namespace, limits)?;
        let connection = file.prepare().await?;
        let readers = file.readers(max_connections);
        let (queues, operations, questions) = Queues::new(limits.request);
        tokio::spawn(writer::run(file.clone(), connection, operations));
        tokio::spawn(reader::run(readers.clone(), Arc::clone(file.namespace()), questions));
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

    /// Deletes these preferences of a user, or all; says how many.
    pub async fn delete_preferences(
        &self,
        user: &UserId,
        names: Option<&[String]>,
    ) -> Result<u64, StoreError> {
        self.queues.in_time("deleting preferences", self.file.delete_preferences(user, names)).await
    }

    /// The user's preferences.
    pub async fn preferences(&self, user: &UserId) -> Result<Map<String, Value>, StoreError> {
        Ok(self.queues.context(user.as_str(), "", 0).await?.preferences)
    }

    fn reading(&self) -> Reading<'_> {
        (&self.readers, self.file.namespace())
    }

    /// For what is asked too rarely to be gathered.
    async fn call<T>(
        &self,
        context: &'static str,
        call: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        self.queues.in_time(context, call.map_err(|e| error::from_sqlx(context, e))).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.queues.admit(batch).await
    }

    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        // As a rule none is, and looking costs no write.
        if !self.call("looking for held turns", held::is_any(self.reading())).await? {
            return Ok(HeldStarted::default());
        }
        self.queues.start_held(query).await
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
        self.call("listing running turns", turns::running(self.reading(), &query)).await
    }

    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.call("reading what a turn began with", turns::opening(self.reading(), workflow)).await
    }

    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.call("looking up the turns before these", turns::ended_before(self.reading(), places)).await
    }

    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.call("looking up how a workflow ended", record::end(self.reading(), workflow)).await
    }

    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.call("looking up the oldest open turn", record::oldest_open(self.reading())).await
    }

    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        self.call("forgetting turns that ended", mend::forget(&self.file, ended_before, most)).await
    }

    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.call("recording an end that was told", mend::restore(&self.file, &ended)).await
    }

    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.call("listing turns", record::latest_turns(self.reading(), &query)).await
    }

    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.call("counting open turns", record::open_turns(self.reading())).await
    }

    async fn mark(&self) -> Result<Mark, StoreError> {
        self.read_mark().await
    }

    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.move_mark(from, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.queues.ping().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.queues.ping().await?;
        self.queues.in_time(probe::PROBING, probe::write(&self.file)).await
    }

    async fn ended(&self) {
        self.queues.ended().await;
    }
}
