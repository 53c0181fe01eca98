//! Connections: how they are made, kept and given up.

use std::{str::FromStr, time::Duration};

use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, Pool, PoolError, QueueMode, RecycleResult},
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use throughline_actors::ports::store::StoreError;
use tokio::time::{Instant, sleep, timeout};

use super::{Limits, code};
use crate::storage::error;

/// A connection that was idle for longer is asked whether it still works: firewalls forget silently.
const ASK_AFTER: Duration = Duration::from_secs(30);

/// A connection is replaced at this age, so that load moves to servers that were added behind the same name.
const MAX_AGE: Duration = Duration::from_mins(30);

/// Wait before connecting again to a server that is starting; it doubles, up to a tenth of the connect limit.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// How often a piece of work is tried: after a lost connection or a lost race it is tried again at once.
const ATTEMPTS: u32 = 3;

pub(super) const OPENING: &str = "connecting to the PostgreSQL server of `database.url`";

/// One round trip to the server, which is a transaction of its own and may be made again.
pub(super) trait Statement: Sync {
    type Answer: Send;

    fn send(
        &self,
        connection: &mut PgConnection,
    ) -> impl Future<Output = Result<Self::Answer, sqlx::Error>> + Send;
}

/// Connections to one database. They are opened when they are needed. (The pool of sqlx asks the server a question of
/// its own whenever a connection comes back, which would make two round trips of each.)
#[derive(Debug, Clone)]
pub(super) struct Connections {
    pool: Pool<Server>,
    limits: Limits,
}

impl Connections {
    pub(super) fn new(url: &str, max_connections: u32, limits: Limits) -> Result<Self, StoreError> {
        let options = options(url, limits).map_err(|e| error::from_sqlx(OPENING, e))?;
        let pool = Pool::builder(Server { options, limits })
            .max_size(usize::try_from(max_connections.max(1)).unwrap_or(usize::MAX))
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(limits.request))
            .recycle_timeout(Some(limits.connect))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| error::from_sqlx(OPENING, sqlx::Error::Configuration(e.into())))?;
        Ok(Self { pool, limits })
    }

    /// A connection that is free, or a new one if there may be more.
    pub(super) async fn get(&self) -> Result<Lease, sqlx::Error> {
        self.pool.get().await.map(Lease).map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            PoolError::Timeout(_) | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                sqlx::Error::PoolTimedOut
            }
        })
    }

    /// Does the work on `lease`, or on another connection if that one turns out to be lost.
    pub(super) async fn run<S: Statement>(
        &self,
        mut lease: Lease,
        statement: &S,
    ) -> Result<S::Answer, sqlx::Error> {
        let deadline = Instant::now() + self.limits.request;
        for attempt in 1.. {
            let left = deadline.saturating_duration_since(Instant::now());
            let failed = match timeout(left, Box::pin(statement.send(&mut lease.0))).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(late) => {
                    self.give_up(lease);
                    return Err(std::io::Error::from(late).into());
                }
            };
            if code::is_conflict(&failed) && attempt < ATTEMPTS {
                continue;
            }
            if code::is_survived(&failed) {
                return Err(failed);
            }
            self.give_up(lease);
            // What was lost on the way may have been done; to do it again changes nothing.
            if error::is_refused(&failed) || attempt >= ATTEMPTS {
                return Err(failed);
            }
            tracing::info!(error = %failed, "a database connection was lost; trying again on a new one");
            lease = self.get().await?;
        }
        Err(sqlx::Error::PoolTimedOut)
    }

    /// A connection in an unknown state is not used again. The idle ones are likely to be lost as well.
    fn give_up(&self, lease: Lease) {
        drop(Object::take(lease.0));
        self.pool.retain(|_, _| false);
    }

    /// Closes all connections; those in use when they come back.
    pub(super) fn close(&self) {
        self.pool.close();
    }
}

/// A connection that goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Lease(Object<Server>);

impl std::ops::Deref for Lease {
    type Target = PgConnection;
    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl std::ops::DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Where connections come from.
#[derive(Debug)]
struct Server {
    options: PgConnectOptions,
    limits: Limits,
}

impl Server {
    /// Connects, and waits for a server that is starting, for as long as the connect limit.
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let deadline = Instant::now() + self.limits.connect;
        let mut pause = FIRST_PAUSE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match timeout(left, Box::pin(PgConnection::connect_with(&self.options))).await {
                Ok(Err(error)) if code::is_starting(&error) && left > pause => {
                    sleep(pause).await;
                    pause = (pause * 2).min(self.limits.connect / 10);
                }
                Ok(done) => return done,
                Err(late) => return Err(std::io::Error::from(late).into()),
            }
        }
    }
}

impl managed::Manager for Server {
    type Type = PgConnection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<PgConnection, sqlx::Error> {
        self.connect().await
    }

    async fn recycle(&self, connection: &mut PgConnection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() > MAX_AGE {
            return Err(managed::RecycleError::message("old"));
        }
        if metrics.last_used() > ASK_AFTER {
            connection.ping().await?;
        }
        Ok(())
    }
}

/// What the URL says, and limits that the server keeps, too: a client that went away holds no lock for long.
fn options(url: &str, limits: Limits) -> Result<PgConnectOptions, sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?;
    let name = options.get_application_name().unwrap_or("throughline").to_owned();
    let settings = [
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", format!("{}ms", limits.request.as_millis())),
        ("lock_timeout", format!("{}ms", limits.lock.as_millis())),
    ];
    Ok(sqlx::ConnectOptions::disable_statement_logging(options).application_name(&name).options(settings))
}
