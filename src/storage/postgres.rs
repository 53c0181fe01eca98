//! The store in a PostgreSQL database, which any number of processes share.
//!
//! Whatever a process wants written while its connections are busy goes to the server as one batch: one round trip, one
//! transaction, one flush of the server's log. Reads are gathered in the same way. What a batch does, and how many
//! processes do it at once without harm, is said in `migrations/postgres/0004_namespaces.sql`.

mod apply;
mod code;
mod connection;
mod context;
mod copy;
mod erase;
mod held;
mod look;
mod migrate;
mod namespaces;
mod nul;
mod onlooker;
mod preferences;
mod record;
mod server;
mod tasks;
mod turns;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryFutureExt as _;
use serde_json::{Map, Value};
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
    ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
    TurnsQuery,
};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId, event::context::Context};
use tokio::time::timeout;

pub use self::server::ServerFacts;
pub(super) use self::{
    code::meaning,
    copy::kept,
    look::look,
    namespaces::{peek, peek_end},
    onlooker::PostgresOnlooker,
};
use self::{
    connection::Connections,
    namespaces::{AskMark, SetMark},
    preferences::{DeletePreferences, SetPreferences},
    server::{AskServer, TakesWrites},
};
use super::{error, queues::Queues};

/// Longest time that one call may take, waiting in queues included. After that its write may still happen. The server
/// gives up at the same time.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that the server waits for the locks of others.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time that connecting may take. A server that is starting is waited for that long.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time that bringing the tables up to date may take, waiting for others that do the same included.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(1);

const MIGRATING: &str = "bringing the tables up to date";

/// How long this store waits for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`REQUEST_TIMEOUT`], its default.
    pub request: Duration,
    /// See [`LOCK_TIMEOUT`], its default.
    pub lock: Duration,
    /// See [`CONNECT_TIMEOUT`], its default.
    pub connect: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: REQUEST_TIMEOUT, lock: LOCK_TIMEOUT, connect: CONNECT_TIMEOUT }
    }
}

/// The store in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresStore {
    namespace: Arc<str>,
    queues: Queues,
    connections: Connections,
    limits: Limits,
}

impl PostgresStore {
    /// Connects to the database and brings its tables up to date. Safe in several processes at once. The database
    /// itself, and the schema that its tables go to (the first of the user's `search_path`), must exist. Nothing but what
    /// belongs to `namespace` is read or written.
    ///
    /// `url` is `postgres://user:password@host:port/database`; of libpq's parameters it takes `sslmode`,
    /// `sslrootcert`, `sslcert`, `sslkey`, `host`, `application_name` and `options`. `max_connections` bounds the
    /// connections of this process, at least one.
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
        let namespace: Arc<str> = namespace.into();
        let connections = Connections::new(url, max_connections, limits)?;
        let prepare = Box::pin(async {
            let mut lease = connections.get().await.map_err(|e| error::from_sqlx(connection::OPENING, e))?;
            migrate::run(&mut lease, &namespace).await.map_err(|e| error::from_sqlx(MIGRATING, e))
        });
        timeout(MIGRATION_TIMEOUT, prepare).await.map_err(|_| error::too_slow(MIGRATING))??;
        let (queues, operations, questions) = Queues::new(limits.request);
        tokio::spawn(tasks::write(connections.clone(), Arc::clone(&namespace), operations));
        tokio::spawn(tasks::read(connections.clone(), Arc::clone(&namespace), questions));
        Ok(Self { namespace, queues, connections, limits })
    }

    /// Finishes the writes that are queued and closes all connections. Every later call fails. Waits no longer than
    /// the request limit; what was not answered by then may not have been written.
    pub async fn close(&self) {
        if timeout(self.limits.request, self.queues.finish()).await.is_err() {
            tracing::warn!("the database was not closed in time");
        }
        self.connections.close();
    }

    /// Sets these preferences of a user and leaves the others.
    pub async fn set_preferences(
        &self,
        user: &UserId,
        preferences: &Map<String, Value>,
    ) -> Result<(), StoreError> {
        self.ask("setting preferences", &SetPreferences { namespace: &self.namespace, user, preferences })
            .await
    }

    /// Deletes these preferences of a user, or all; says how many.
    pub async fn delete_preferences(
        &self,
        user: &UserId,
        names: Option<&[String]>,
    ) -> Result<u64, StoreError> {
        self.ask("deleting preferences", &DeletePreferences { namespace: &self.namespace, user, names }).await
    }

    /// The user's preferences.
    pub async fn preferences(&self, user: &UserId) -> Result<Map<String, Value>, StoreError> {
        Ok(self.queues.context(user.as_str(), "", 0).await?.preferences)
    }

    /// What the server says about itself.
    pub async fn server(&self) -> Result<ServerFacts, StoreError> {
        self.ask("asking the server about its settings", &AskServer).await
    }

    /// For what is asked too rarely to be gathered.
    async fn ask<S: connection::Statement>(
        &self,
        context: &'static str,
        statement: &S,
    ) -> Result<S::Answer, StoreError> {
        let ask = async {
            let lease = self.connections.get().await?;
            self.connections.run(lease, statement).await
        };
        self.queues.in_time(context, Box::pin(ask.map_err(|e| error::from_sqlx(context, e)))).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.queues.admit(batch).await
    }

    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        let start = held::StartHeld { namespace: &self.namespace, query: &query };
        self.ask("starting held turns", &start).await
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
        self.ask("listing running turns", &turns::Running(&self.namespace, &query)).await
    }

    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.ask("reading what a turn began with", &turns::AskOpening(&self.namespace, workflow)).await
    }

    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.ask("looking up the turns before these", &turns::AskEndedBefore(&self.namespace, places)).await
    }

    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.ask("looking up how a workflow ended", &record::AskEnd(&self.namespace, workflow)).await
    }

    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.ask("looking up the oldest open turn", &record::AskOldest(&self.namespace)).await
    }

    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        let forget = record::Forget { namespace: &self.namespace, ended_before, most };
        self.ask("forgetting turns that ended", &forget).await
    }

    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.ask("recording an end that was told", &record::Restore(&self.namespace, &ended)).await
    }

    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.ask("listing turns", &record::List(&self.namespace, &query)).await
    }

    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.ask("counting open turns", &record::AskOpen(&self.namespace)).await
    }

    async fn mark(&self) -> Result<Mark, StoreError> {
        self.ask("reading how far the log is in the database", &AskMark(&self.namespace)).await
    }

    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let set = SetMark { namespace: &self.namespace, from, to };
        self.ask("noting how far the log is in the database", &set).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.queues.ping().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.queues.ping().await?;
        self.ask("trying to write", &TakesWrites).await
    }

    async fn ended(&self) {
        self.queues.ended().await;
    }
}
