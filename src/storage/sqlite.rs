//! The store in one SQLite file, which several processes may share.
//!
//! A commit costs a flush of the disk, so all writes of a process go through one task that commits whatever has
//! queued while the commit before it ran: many operations, one flush. Reads are gathered in the same way.

mod answers;
mod batch;
mod error;
mod file;
mod operation;
mod reader;
mod text;
mod turns;
mod writer;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use sqlx::SqlitePool;
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, Failing, Interaction, Opening, RunningQuery, RunningTurn, Store, StoreError,
};
use throughline_schemas::{SessionId, UserId, WorkflowId, event::context::Context};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use self::{
    file::DatabaseFile,
    operation::{Answer, Operation},
    reader::Question,
};

/// Longest time that one call may take, waiting in queues included. After that its write may still happen.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that SQLite waits for the lock of another process.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Operations that may wait for the writer, and questions that may wait for a reader; more wait to be queued.
const QUEUE: usize = 1024;

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
    writes: mpsc::Sender<Operation>,
    reads: mpsc::Sender<Question>,
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
        let (writes, operations) = mpsc::channel(QUEUE);
        let (reads, questions) = mpsc::channel(QUEUE);
        tokio::spawn(writer::run(file.clone(), connection, operations));
        tokio::spawn(reader::run(readers.clone(), questions));
        Ok(Self { file, writes, reads, readers, limits })
    }

    /// Finishes the writes that are queued, folds the write-ahead log into the database and closes it. Every
    /// later call fails. Waits no longer than the request limit; what was not answered by then may not have
    /// been written.
    pub async fn close(&self) {
        let (closed, done) = oneshot::channel();
        let close = async {
            if self.writes.send(Operation::Close(closed)).await.is_ok() {
                // An error means that the writer is gone, which is what was asked for.
                let _ = done.await;
            }
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
        timeout(self.limits.request, set).await.map_err(|_| error::too_slow("setting preferences"))?
    }

    /// The user's preferences.
    pub async fn preferences(&self, user: &UserId) -> Result<Map<String, Value>, StoreError> {
        Ok(self.ask(user.as_str(), "", 0).await?.preferences)
    }

    async fn write<T>(
        &self,
        context: &'static str,
        operation: impl FnOnce(Answer<T>) -> Operation,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let write = async {
            self.writes.send(operation(answer)).await.map_err(|_| error::closed(context))?;
            answered.await.map_err(|_| error::closed(context))?
        };
        timeout(self.limits.request, write).await.map_err(|_| error::too_slow(context))?
    }

    async fn ask(&self, user: &str, session: &str, turns: usize) -> Result<Context, StoreError> {
        const CONTEXT: &str = "reading preferences and recent turns";
        let (answer, answered) = oneshot::channel();
        let question = Question { user: user.to_owned(), session: session.to_owned(), turns, answer };
        let read = async {
            self.reads.send(question).await.map_err(|_| error::closed(CONTEXT))?;
            answered.await.map_err(|_| error::closed(CONTEXT))?
        };
        timeout(self.limits.request, read).await.map_err(|_| error::too_slow(CONTEXT))?
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.write("admitting inputs", |answer| Operation::Admit { batch, answer }).await
    }

    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.ask(user.as_str(), session.as_str(), turns).await
    }

    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        let interaction = Box::new(interaction);
        self.write("saving an interaction", |answer| Operation::Save { interaction, answer }).await
    }

    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.write("failing a turn", |answer| Operation::Fail { failing, answer }).await
    }

    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        const CONTEXT: &str = "listing running turns";
        let running = turns::running(&self.readers, &query);
        let answer = timeout(self.limits.request, running).await.map_err(|_| error::too_slow(CONTEXT))?;
        answer.map_err(|refused| error::from_sqlx(CONTEXT, refused))
    }

    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        const CONTEXT: &str = "reading what a turn began with";
        let opening = turns::opening(&self.readers, workflow);
        let answer = timeout(self.limits.request, opening).await.map_err(|_| error::too_slow(CONTEXT))?;
        answer.map_err(|refused| error::from_sqlx(CONTEXT, refused))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        // No such user and no such session: ids are never empty. It still goes the way of every read.
        self.ask("", "", 0).await.map(drop)
    }

    async fn ended(&self) {
        // The other end of each channel is a task's.
        tokio::select! {
            () = self.writes.closed() => {}
            () = self.reads.closed() => {}
        }
    }
}
