//! Identity and workers of a namespace.

use sqlx::{Connection, PgConnection, Row};
use throughline_actors::ports::store::{Mark, StoreError};

use super::{
    Limits, PostgresStore,
    connection::{Connections, Statement},
};
use crate::storage::{
    error,
    namespaces::{Beat, Peeked, Stranger, WORKER_COUNTS_FOR, seconds},
    text::integer,
};

const READING: &str = "reading which namespace the database belongs to";

const IDENTITY: &str = "SELECT identity FROM namespaces WHERE namespace = $1";
const ENDED: &str = "SELECT EXISTS (SELECT FROM turns
    WHERE namespace = $1 AND workflow_id = $2 AND state IN ('saved', 'failed'))";
const CLAIM: &str = "INSERT INTO namespaces (namespace, identity, created_at) VALUES ($1, $2, now())
    ON CONFLICT (namespace) DO NOTHING";
/// Rows of workers that vanished are kept for a day.
const FORGET: &str =
    "DELETE FROM namespace_workers WHERE namespace = $1 AND seen_at < clock_timestamp() - interval '1 day'";
const BEAT: &str = "INSERT INTO namespace_workers (namespace, worker, log, seen_at)
    VALUES ($1, $2, $3, clock_timestamp())
    ON CONFLICT (namespace, worker) DO UPDATE SET log = excluded.log, seen_at = excluded.seen_at";
const STRANGERS: &str = "SELECT worker, extract(epoch FROM clock_timestamp() - seen_at)::float8
    FROM namespace_workers
    WHERE namespace = $1 AND log <> $2 AND seen_at > clock_timestamp() - make_interval(secs => $3)
    ORDER BY worker";
const MARK: &str = "SELECT
    (SELECT log_sequence FROM namespace_marks WHERE namespace = $1), pg_postmaster_start_time()::text";
const SET_MARK: &str = "INSERT INTO namespace_marks (namespace, log_sequence)
    SELECT $1, $3 WHERE $2 = 0 OR EXISTS (SELECT FROM namespace_marks WHERE namespace = $1)
    ON CONFLICT (namespace) DO UPDATE SET log_sequence = excluded.log_sequence
    WHERE namespace_marks.log_sequence = $2";
const LEAVE: &str = "DELETE FROM namespace_workers WHERE namespace = $1 AND worker = $2";

impl PostgresStore {
    pub(in crate::storage) async fn identity(&self, namespace: &str) -> Result<Option<String>, StoreError> {
        self.ask(READING, &AskIdentity { namespace }).await
    }

    pub(in crate::storage) async fn claim_identity(
        &self,
        namespace: &str,
        proposed: &str,
    ) -> Result<String, StoreError> {
        let claim = Claim { namespace, proposed };
        self.ask("noting which namespace the database belongs to", &claim).await
    }

    pub(in crate::storage) async fn beat(
        &self,
        namespace: &str,
        beat: &Beat,
    ) -> Result<Vec<Stranger>, StoreError> {
        self.ask("noting which worker uses the database", &NoteBeat { namespace, beat }).await
    }

    pub(in crate::storage) async fn leave(&self, namespace: &str, worker: &str) -> Result<(), StoreError> {
        let leave = Leave { namespace, worker };
        self.ask("noting that a worker does not use the database any more", &leave).await
    }
}

/// How far is the log known to be in the database?
pub(super) struct AskMark<'a>(pub(super) &'a str);

impl Statement for AskMark<'_> {
    type Answer = Mark;

    async fn send(&self, connection: &mut PgConnection) -> Result<Mark, sqlx::Error> {
        let row = sqlx::query(MARK).bind(self.0).fetch_one(connection).await?;
        let sequence: Option<i64> = row.try_get(0)?;
        Ok(Mark { sequence: sequence.map_or(0, i64::unsigned_abs), server: row.try_get(1)? })
    }
}

/// Move that mark.
pub(super) struct SetMark<'a> {
    pub(super) namespace: &'a str,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Statement for SetMark<'_> {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let Self { namespace, from, to } = self;
        let moved = sqlx::query(SET_MARK).bind(*namespace).bind(integer(*from)).bind(integer(*to));
        moved.execute(connection).await.map(drop)
    }
}

struct AskIdentity<'a> {
    namespace: &'a str,
}

impl Statement for AskIdentity<'_> {
    type Answer = Option<String>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
        sqlx::query_scalar(IDENTITY).bind(self.namespace).fetch_optional(connection).await
    }
}

struct Claim<'a> {
    namespace: &'a str,
    proposed: &'a str,
}

impl Statement for Claim<'_> {
    type Answer = String;

    async fn send(&self, connection: &mut PgConnection) -> Result<String, sqlx::Error> {
        sqlx::query(CLAIM).bind(self.namespace).bind(self.proposed).execute(&mut *connection).await?;
        sqlx::query_scalar(IDENTITY).bind(self.namespace).fetch_one(connection).await
    }
}

struct NoteBeat<'a> {
    namespace: &'a str,
    beat: &'a Beat,
}

impl Statement for NoteBeat<'_> {
    type Answer = Vec<Stranger>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<Stranger>, sqlx::Error> {
        let Beat { worker, log } = self.beat;
        sqlx::query(FORGET).bind(self.namespace).execute(&mut *connection).await?;
        sqlx::query(BEAT).bind(self.namespace).bind(worker).bind(log).execute(&mut *connection).await?;
        let counts = WORKER_COUNTS_FOR.as_secs_f64();
        let strangers = sqlx::query(STRANGERS).bind(self.namespace).bind(log).bind(counts);
        let rows = strangers.fetch_all(connection).await?;
        rows.iter()
            .map(|row| Ok(Stranger { worker: row.try_get(0)?, seen_ago: seconds(row.try_get(1)?) }))
            .collect()
    }
}

struct Leave<'a> {
    namespace: &'a str,
    worker: &'a str,
}

impl Statement for Leave<'_> {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(LEAVE).bind(self.namespace).bind(self.worker).execute(connection).await.map(drop)
    }
}

struct Peek<'a> {
    namespace: &'a str,
}

impl Statement for Peek<'_> {
    type Answer = Peeked;

    async fn send(&self, connection: &mut PgConnection) -> Result<Peeked, sqlx::Error> {
        let mut looking = connection.begin().await?;
        sqlx::query("SET TRANSACTION READ ONLY").execute(&mut *looking).await?;
        let known = sqlx::query_scalar("SELECT to_regclass('namespaces') IS NOT NULL");
        let is_known: bool = known.fetch_one(&mut *looking).await?;
        let identity = if is_known {
            sqlx::query_scalar(IDENTITY).bind(self.namespace).fetch_optional(&mut *looking).await?
        } else {
            None
        };
        looking.rollback().await?;
        Ok(identity.map_or(Peeked::Nothing, Peeked::Identity))
    }
}

struct PeekEnd<'a> {
    namespace: &'a str,
    workflow: &'a str,
}

impl Statement for PeekEnd<'_> {
    type Answer = bool;

    async fn send(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar(ENDED).bind(self.namespace).bind(self.workflow).fetch_one(connection).await
    }
}

/// See [`crate::storage::peek`].
pub(in crate::storage) async fn peek(url: &str, namespace: &str) -> Result<Peeked, StoreError> {
    look_once(READING, url, &Peek { namespace }).await
}

/// See [`crate::storage::peek_end`].
pub(in crate::storage) async fn peek_end(
    url: &str,
    namespace: &str,
    workflow: &str,
) -> Result<bool, StoreError> {
    look_once(READING, url, &PeekEnd { namespace, workflow }).await
}

pub(super) async fn look_once<S: Statement>(
    context: &'static str,
    url: &str,
    statement: &S,
) -> Result<S::Answer, StoreError> {
    let connections = Connections::new(url, 1, Limits::default())?;
    let asked = async {
        let lease = connections.get().await?;
        connections.run(lease, statement).await
    };
    let answer = asked.await.map_err(|e| error::from_sqlx(context, e));
    connections.close();
    answer
}
