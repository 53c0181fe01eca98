//! Looking at turns in a database that is not changed: no file, no table and no row is made.

use std::{str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use throughline_actors::ports::store::{ListedTurn, OpenTurns, StoreError, TurnsQuery};
use tokio::time::timeout;

use super::{error, postgres::PostgresOnlooker, sqlite};

const OPENING: &str = "opening the database for reading";
const LISTING: &str = "listing turns";
const COUNTING: &str = "counting open turns";

/// Longest time that one question may take, connecting included.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that SQLite waits for the lock of another process. Readers hardly ever meet one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections of one onlooker: it asks one question after the other.
const CONNECTIONS: u32 = 1;

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum OnlookerError {
    /// The URL is of no database that is known here.
    #[error("it is no database known here; write sqlite://FILE or postgres://USER@HOST/DATABASE")]
    Unknown,
    /// There is no such file.
    #[error("the file does not exist; the first worker creates it, so start one, or correct database.url")]
    Missing,
    /// It has no tables of this version.
    #[error(
        "it has no tables of this version yet; the first worker makes them, so start one, or correct database.url"
    )]
    NotPrepared,
    /// It does not answer, or not as it should.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A reader of the turns of one namespace, which changes nothing.
#[derive(Debug)]
pub struct Onlooker {
    database: Database,
    namespace: Arc<str>,
}

#[derive(Debug)]
enum Database {
    Sqlite(Box<SqliteConnectOptions>),
    Postgres(PostgresOnlooker),
}

impl Onlooker {
    /// Looks whether the database is there and has tables of this version.
    pub async fn open(url: &str, namespace: &str) -> Result<Self, OnlookerError> {
        let failed = |e| error::from_sqlx(OPENING, e);
        let database = if url.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(url).map_err(failed)?;
            if !options.get_filename().exists() {
                return Err(OnlookerError::Missing);
            }
            let options = options.read_only(true).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
            Database::Sqlite(Box::new(sqlx::ConnectOptions::disable_statement_logging(options)))
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            Database::Postgres(PostgresOnlooker::new(url, CONNECTIONS)?)
        } else {
            return Err(OnlookerError::Unknown);
        };
        let is_prepared = in_time(OPENING, async {
            match &database {
                Database::Sqlite(file) => in_file(file, async |pool| sqlite::has_lists(pool).await).await,
                Database::Postgres(onlooker) => onlooker.has_lists().await,
            }
        });
        if !is_prepared.await? {
            return Err(OnlookerError::NotPrepared);
        }
        Ok(Self { database, namespace: namespace.into() })
    }

    /// As [`throughline_actors::ports::store::Store::latest_turns`].
    pub async fn latest_turns(&self, query: &TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        in_time(LISTING, async {
            match &self.database {
                Database::Sqlite(file) => {
                    in_file(file, async |pool| sqlite::latest_turns((pool, &self.namespace), query).await)
                        .await
                }
                Database::Postgres(onlooker) => onlooker.latest_turns(&self.namespace, query).await,
            }
        })
        .await
    }

    /// As [`throughline_actors::ports::store::Store::open_turns`].
    pub async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        in_time(COUNTING, async {
            match &self.database {
                Database::Sqlite(file) => {
                    in_file(file, async |pool| sqlite::open_turns((pool, &self.namespace)).await).await
                }
                Database::Postgres(onlooker) => onlooker.open_turns(&self.namespace).await,
            }
        })
        .await
    }

    /// Closes the connections.
    pub fn close(&self) {
        match &self.database {
            // Each question has a connection of its own.
            Database::Sqlite(_) => {}
            Database::Postgres(onlooker) => onlooker.close(),
        }
    }
}

/// Asks an SQLite file one question, and leaves nothing beside it: see [`sqlite::lies_still`].
async fn in_file<T>(
    file: &SqliteConnectOptions,
    ask: impl AsyncFn(&SqlitePool) -> Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    let mut attempt = 1;
    loop {
        let lies_still = sqlite::lies_still(file.get_filename());
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(QUESTION_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(file.clone().immutable(lies_still));
        let answer = ask(&pool).await;
        pool.close().await;
        // A process that began to write meanwhile may have moved what was being read.
        if lies_still && !sqlite::lies_still(file.get_filename()) && attempt < sqlite::READS {
            attempt += 1;
            continue;
        }
        return answer;
    }
}

async fn in_time<T>(
    context: &'static str,
    question: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match timeout(QUESTION_TIMEOUT, question).await {
        Ok(answer) => answer.map_err(|e| error::from_sqlx(context, e)),
        Err(_) => Err(error::too_slow(context)),
    }
}
