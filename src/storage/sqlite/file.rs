//! The database file: how it is opened, and how its tables come to be.

use std::{path::Path, str::FromStr, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use sqlx::{
    Connection, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use throughline_actors::ports::store::{StoreError, StoreTrouble};
use throughline_schemas::UserId;
use tokio::time::{Instant, sleep};

use super::Limits;
use crate::storage::error;

/// Between attempts to open a database that another process is opening too.
const OPEN_PAUSE: Duration = Duration::from_millis(20);

/// Rows that SQLite's thread may be ahead of the task that reads them.
const ROWS_AHEAD: usize = 1024;

/// Page caches of the connection that writes and of each that reads, in KiB (SQLite takes that as a negative number). Small:
/// what is not here is in the system's cache, and an idle process keeps what is.
const WRITER_CACHE_KIB: &str = "-8192";
const READER_CACHE_KIB: &str = "-2048";

/// Pages in the log at which a commit also folds it into the database: more of them share that work, and opening
/// the file after a crash takes longer.
const LOG_PAGES: &str = "4000";

/// The log shrinks back to this many bytes after a burst.
const LOG_BYTES: &str = "67108864";

/// Rows of versions that knew no namespaces become those of the first one that comes.
const ADOPT: [&str; 3] = [
    "UPDATE turns SET namespace = $1 WHERE namespace = ''",
    "UPDATE interactions SET namespace = $1 WHERE namespace = ''",
    "UPDATE preferences SET namespace = $1 WHERE namespace = ''",
];

const OPENING: &str = "opening the SQLite file of `database.url`";
const MIGRATING: &str = "bringing the tables up to date";
const SETTING_PREFERENCES: &str = "setting preferences";
const DELETING_PREFERENCES: &str = "deleting preferences";

#[derive(Debug, thiserror::Error)]
enum UrlError {
    #[error(
        "an in-memory database cannot be shared by several connections; give a file: sqlite://throughline.db"
    )]
    InMemory,
    #[error("a read-only database cannot keep anything; remove `mode=ro` and `immutable` from the URL")]
    ReadOnly,
    #[error("the URL names no file; write it like sqlite://throughline.db")]
    NoFile,
}

/// A database file and how to open it.
#[derive(Debug, Clone)]
pub(super) struct DatabaseFile {
    options: Arc<SqliteConnectOptions>,
    namespace: Arc<str>,
    limits: Limits,
}

impl DatabaseFile {
    pub(super) fn new(url: &str, namespace: &str, limits: Limits) -> Result<Self, StoreError> {
        let refuse = |error: UrlError| StoreError::Refused {
            context: OPENING,
            trouble: StoreTrouble::Misconfigured,
            source: Some(Box::new(error)),
        };
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        if path.contains(":memory:") || query.contains("mode=memory") {
            return Err(refuse(UrlError::InMemory));
        }
        if query.contains("mode=ro") || query.contains("immutable") {
            return Err(refuse(UrlError::ReadOnly));
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|e| error::from_sqlx(OPENING, e))?;
        if options.get_filename().as_os_str().is_empty() {
            return Err(refuse(UrlError::NoFile));
        }
        let options = sqlx::ConnectOptions::disable_statement_logging(options)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(limits.busy)
            .row_buffer_size(ROWS_AHEAD)
            .pragma("temp_store", "memory")
            .pragma("cache_size", WRITER_CACHE_KIB)
            .pragma("journal_size_limit", LOG_BYTES)
            .pragma("wal_autocheckpoint", LOG_PAGES);
        Ok(Self { options: Arc::new(options), namespace: namespace.into(), limits })
    }

    pub(super) fn path(&self) -> &Path {
        self.options.get_filename()
    }

    /// Whose rows are read and written.
    pub(super) fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// A connection that may write.
    pub(super) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        SqliteConnection::connect_with(&self.options).await
    }

    /// A connection to a file that is there, which waits no longer than this for the locks of others.
    pub(super) async fn connect_briefly(&self, limit: Duration) -> Result<SqliteConnection, sqlx::Error> {
        let options = (*self.options).clone().create_if_missing(false).busy_timeout(limit);
        SqliteConnection::connect_with(&options).await
    }

    /// Connections that read, opened when they are needed.
    pub(super) fn readers(&self, max_connections: u32) -> SqlitePool {
        let options = (*self.options).clone().create_if_missing(false);
        let options = options.pragma("query_only", "ON").pragma("cache_size", READER_CACHE_KIB);
        SqlitePoolOptions::new()
            .max_connections(max_connections.max(1))
            .acquire_timeout(self.limits.request)
            // The worker is a thread of this process: there is nothing to find out by asking it first.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options)
    }

    /// Creates the file if there is none, brings its tables up to date, and returns the connection that did.
    pub(super) async fn prepare(&self) -> Result<SqliteConnection, StoreError> {
        let deadline = Instant::now() + self.limits.request;
        // Switching a new file to WAL needs it alone and does not wait for that by itself.
        let mut connection = loop {
            match self.connect().await {
                Ok(connection) => break connection,
                Err(busy) if error::is_locked(&busy) && Instant::now() < deadline => sleep(OPEN_PAUSE).await,
                Err(other) => return Err(error::from_sqlx(OPENING, other)),
            }
        };
        migrate(&mut connection, &self.namespace).await.map_err(|e| error::from_sqlx(MIGRATING, e))?;
        Ok(connection)
    }

    /// Rare enough not to go through the writer.
    pub(super) async fn set_preferences(
        &self,
        user: &UserId,
        preferences: &Map<String, Value>,
    ) -> Result<(), StoreError> {
        let refuse = |e| error::from_sqlx(SETTING_PREFERENCES, e);
        let rows: Vec<(&str, String)> =
            preferences.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        let rows = serde_json::to_string(&rows).map_err(|e| refuse(sqlx::Error::Encode(e.into())))?;
        let mut connection = self.connect().await.map_err(refuse)?;
        sqlx::query(
            "INSERT INTO preferences (namespace, user_id, name, value, updated_at)
             SELECT ?3, ?1, q.value ->> 0, q.value ->> 1, strftime('%Y-%m-%dT%H:%M:%f000000Z')
             FROM jsonb_each(?2) AS q WHERE true
             ON CONFLICT (namespace, user_id, name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
        )
        .bind(user.as_str())
        .bind(rows)
        .bind(&*self.namespace)
        .execute(&mut connection)
        .await
        .map_err(refuse)?;
        connection.close().await.map_err(refuse)
    }

    /// As rare.
    pub(super) async fn delete_preferences(
        &self,
        user: &UserId,
        names: Option<&[String]>,
    ) -> Result<u64, StoreError> {
        let refuse = |e| error::from_sqlx(DELETING_PREFERENCES, e);
        let names = names.map(serde_json::to_string).transpose();
        let names = names.map_err(|e| refuse(sqlx::Error::Encode(e.into())))?;
        let mut connection = self.connect().await.map_err(refuse)?;
        let deleted = sqlx::query(
            "DELETE FROM preferences WHERE namespace = ?1 AND user_id = ?2
             AND (?3 IS NULL OR name IN (SELECT q.value FROM json_each(?3) AS q))",
        )
        .bind(&*self.namespace)
        .bind(user.as_str())
        .bind(names)
        .execute(&mut connection)
        .await
        .map_err(refuse)?
        .rows_affected();
        connection.close().await.map_err(refuse)?;
        Ok(deleted)
    }
}

/// All or nothing, and one process at a time: sqlx takes no lock of its own on SQLite, so that of two processes
/// that find the same tables missing the second would fail to create them.
async fn migrate(connection: &mut SqliteConnection, namespace: &str) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    migrations().run_direct(None, &mut *transaction, false).await?;
    let mut adopted = 0;
    for adopt in ADOPT {
        adopted += sqlx::query(adopt).bind(namespace).execute(&mut *transaction).await?.rows_affected();
    }
    transaction.commit().await?;
    if adopted > 0 {
        tracing::info!(
            rows = adopted,
            namespace,
            "the database was of a version without namespaces; its rows belong to this one now"
        );
    }
    Ok(())
}

pub(in crate::storage) fn migrations() -> Migrator {
    let embedded = [
        (
            1,
            "turns interactions preferences",
            include_str!("../migrations/sqlite/0001_turns_interactions_preferences.sql"),
        ),
        (
            2,
            "busy sessions and sweeping",
            include_str!("../migrations/sqlite/0002_busy_sessions_and_sweeping.sql"),
        ),
        (3, "ended turns", include_str!("../migrations/sqlite/0003_ended_turns.sql")),
        (4, "namespaces", include_str!("../migrations/sqlite/0004_namespaces.sql")),
        (5, "identity", include_str!("../migrations/sqlite/0005_identity.sql")),
        (6, "copies", include_str!("../migrations/sqlite/0006_copies.sql")),
        (7, "users", include_str!("../migrations/sqlite/0007_users.sql")),
        (8, "statistics", include_str!("../migrations/sqlite/0008_statistics.sql")),
    ];
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(embedded.into_iter().map(migration).collect())
}
