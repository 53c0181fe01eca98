//! The store that a URL names.

use async_trait::async_trait;
use serde_json::{Map, Value};
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
    ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
    TurnsQuery,
};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId, event::context::Context};

use super::{postgres::PostgresStore, sqlite::SqliteStore};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is of no database that is known here.
    #[error("it is no database known here; write sqlite://FILE or postgres://USER@HOST/DATABASE")]
    Unknown,
    /// It cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store of either kind.
#[derive(Debug)]
pub enum Database {
    /// One file.
    Sqlite(SqliteStore),
    /// A server.
    Postgres(PostgresStore),
}

impl Database {
    /// Opens the database and brings its tables up to date. An SQLite file is created if there is none.
    /// Nothing but what belongs to `namespace` is read or written.
    pub async fn open(url: &str, max_connections: u32, namespace: &str) -> Result<Self, DatabaseError> {
        if url.starts_with("sqlite:") {
            Ok(Self::Sqlite(SqliteStore::open(url, max_connections, namespace).await?))
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Ok(Self::Postgres(PostgresStore::open(url, max_connections, namespace).await?))
        } else {
            Err(DatabaseError::Unknown)
        }
    }

    /// Finishes the writes that are queued and closes it, within a limit. Every later call fails.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres(store) => store.close().await,
        }
    }

    /// Sets these preferences of a user and leaves the others.
    pub async fn set_preferences(
        &self,
        user: &UserId,
        preferences: &Map<String, Value>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.set_preferences(user, preferences).await,
            Self::Postgres(store) => store.set_preferences(user, preferences).await,
        }
    }

    /// Deletes these preferences of a user, or all; says how many.
    pub async fn delete_preferences(
        &self,
        user: &UserId,
        names: Option<&[String]>,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(store) => store.delete_preferences(user, names).await,
            Self::Postgres(store) => store.delete_preferences(user, names).await,
        }
    }

    fn store(&self) -> &dyn Store {
        match self {
            Self::Sqlite(store) => store,
            Self::Postgres(store) => store,
        }
    }
}

#[async_trait]
impl Store for Database {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.store().admit(batch).await
    }

    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        self.store().start_held(query).await
    }

    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.store().context(user, session, turns).await
    }

    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.store().save(interaction).await
    }

    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.store().fail(failing).await
    }

    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        self.store().running(query).await
    }

    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.store().opening(workflow).await
    }

    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.store().ended_before(places).await
    }

    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.store().end(workflow).await
    }

    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.store().oldest_open().await
    }

    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        self.store().forget_ended(ended_before, most).await
    }

    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.store().restore(ended).await
    }

    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.store().latest_turns(query).await
    }

    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.store().open_turns().await
    }

    async fn mark(&self) -> Result<Mark, StoreError> {
        self.store().mark().await
    }

    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.store().set_mark(from, to).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store().ping().await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store().probe().await
    }

    async fn ended(&self) {
        self.store().ended().await;
    }
}
