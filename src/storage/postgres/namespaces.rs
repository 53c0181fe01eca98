//! Identity and workers of a namespace.

use sqlx::{Connection, PgConnection, Row, postgres::PgRow};
use throughline_actors::ports::store::{Mark, StoreError};

use super::{
    Limits, PostgresStore,
    connection::{Connections, Statement},
};
use crate::storage::{
    error,
    namespaces::{Beat, CALLS_COUNT_FOR, CopiedTo, Identity, Peeked, Stranger, WORKER_COUNTS_FOR, seconds},
    text::integer,
};

const READING: &str = "reading which namespace the database belongs to";
const COPYING: &str = "noting where the namespace's rows are copied to";

const IDENTITY: &str = "SELECT n.identity, c.copied_to, c.completed_at IS NOT NULL
    FROM namespaces AS n LEFT JOIN namespace_copies AS c ON c.namespace = n.namespace WHERE n.namespace = $1";
/// Of a database that does not know yet that rows may be copied.
const EARLIER_IDENTITY: &str = "SELECT identity, NULL::text, FALSE FROM namespaces WHERE namespace = $1";
const BEGIN_COPY: &str = "INSERT INTO namespace_copies (namespace, copied_to) VALUES ($1, $2)
    ON CONFLICT (namespace) DO NOTHING";
const COPIED: &str = "SELECT copied_to, completed_at IS NOT NULL FROM namespace_copies WHERE namespace = $1";
const COMPLETE_COPY: &str = "UPDATE namespace_copies SET completed_at = clock_timestamp()
    WHERE namespace = $1 AND completed_at IS NULL";
const RENEW: &str = "WITH gone AS (DELETE FROM namespace_copies WHERE namespace = $1)
    UPDATE namespaces SET identity = $2 WHERE namespace = $1";
const ENDED: &str = "SELECT EXISTS (SELECT FROM turns
    WHERE namespace = $1 AND workflow_id = $2 AND state IN ('saved', 'failed'))";
const CLAIM: &str = "INSERT INTO namespaces (namespace, identity, created_at) VALUES ($1, $2, now())
    ON CONFLICT (namespace) DO NOTHING";
/// Rows of workers that vanished are kept for a day.
const FORGET: &str =
    "DELETE FROM namespace_workers WHERE namespace = $1 AND seen_at < clock_timestamp() - interval '1 day'";
const BEAT: &str = "INSERT INTO namespace_workers (namespace, worker, log, calls, seen_at)
    VALUES ($1, $2, $3, $4, clock_timestamp())
    ON CONFLICT (namespace, worker) DO UPDATE SET
        log = excluded.log, calls = excluded.calls, seen_at = excluded.seen_at";
const CALLS: &str = "SELECT coalesce(sum(coalesce(calls, $3)), 0)::bigint FROM namespace_workers
    WHERE namespace = $1 AND log = $2 AND seen_at > clock_timestamp() - make_interval(secs => $4)";
const STRANGERS: &str = "SELECT worker, extract(epoch FROM clock_timestamp() - seen_at)::float8
    FROM namespace_workers
    WHERE namespace = $1 AND log <> $2 AND seen_at > clock_timestamp() - make_interval(secs => $3)
    ORDER BY worker";
/// A log that there is not.
const NO_LOG: &str = "";
const MARK: &str = "SELECT
    (SELECT log_sequence FROM namespace_marks WHERE namespace = $1), pg_postmaster_start_time()::text";
const SET_MARK: &str = "INSERT INTO namespace_marks (namespace, log_sequence)
    SELECT $1, $3 WHERE $2 = 0 OR EXISTS (SELECT FROM namespace_marks WHERE namespace = $1)
    ON CONFLICT (namespace) DO UPDATE SET log_sequence = excluded.log_sequence
    WHERE namespace_marks.log_sequence = $2";
const LEAVE: &str = "DELETE FROM namespace_workers WHERE namespace = $1 AND worker = $2";

impl PostgresStore {
    pub(in crate::storage) async fn identity(&self, namespace: &str) -> Result<Option<Identity>, StoreError> {
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

    pub(in crate::storage) async fn calls(
        &self,
        namespace: &str,
        log: &str,
        own: u32,
    ) -> Result<i64, StoreError> {
        self.ask("counting the calls that workers can make", &AskCalls { namespace, log, own }).await
    }

    pub(in crate::storage) async fn workers(&self, namespace: &str) -> Result<Vec<Stranger>, StoreError> {
        self.ask(READING, &AskWorkers { namespace }).await
    }

    pub(in crate::storage) async fn begin_copy(
        &self,
        namespace: &str,
        place: &str,
    ) -> Result<CopiedTo, StoreError> {
        self.ask(COPYING, &BeginCopy { namespace, place }).await
    }

    pub(in crate::storage) async fn complete_copy(&self, namespace: &str) -> Result<(), StoreError> {
        self.ask(COPYING, &CompleteCopy { namespace }).await
    }

    pub(in crate::storage) async fn renew_identity(
        &self,
        namespace: &str,
        identity: &str,
    ) -> Result<(), StoreError> {
        self.ask(
            "giving what is left of the namespace an identity of its own",
            &Renew { namespace, identity },
        )
        .await
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
    type Answer = Option<Identity>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Option<Identity>, sqlx::Error> {
        let row = sqlx::query(IDENTITY).bind(self.namespace).fetch_optional(connection).await?;
        row.as_ref().map(as_identity).transpose()
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
        let row = sqlx::query(IDENTITY).bind(self.namespace).fetch_one(connection).await?;
        row.try_get(0)
    }
}

struct NoteBeat<'a> {
    namespace: &'a str,
    beat: &'a Beat,
}

impl Statement for NoteBeat<'_> {
    type Answer = Vec<Stranger>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<Stranger>, sqlx::Error> {
        let Beat { worker, log, calls } = self.beat;
        sqlx::query(FORGET).bind(self.namespace).execute(&mut *connection).await?;
        let noted = sqlx::query(BEAT).bind(self.namespace).bind(worker).bind(log).bind(i64::from(*calls));
        noted.execute(&mut *connection).await?;
        strangers(connection, self.namespace, log).await
    }
}

struct AskCalls<'a> {
    namespace: &'a str,
    log: &'a str,
    own: u32,
}

impl Statement for AskCalls<'_> {
    type Answer = i64;

    async fn send(&self, connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
        let calls = sqlx::query_scalar(CALLS).bind(self.namespace).bind(self.log).bind(i64::from(self.own));
        calls.bind(CALLS_COUNT_FOR.as_secs_f64()).fetch_one(connection).await
    }
}

struct AskWorkers<'a> {
    namespace: &'a str,
}

impl Statement for AskWorkers<'_> {
    type Answer = Vec<Stranger>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<Stranger>, sqlx::Error> {
        strangers(connection, self.namespace, NO_LOG).await
    }
}

/// Workers of other logs than this one.
async fn strangers(
    connection: &mut PgConnection,
    namespace: &str,
    log: &str,
) -> Result<Vec<Stranger>, sqlx::Error> {
    let counts = WORKER_COUNTS_FOR.as_secs_f64();
    let rows = sqlx::query(STRANGERS).bind(namespace).bind(log).bind(counts).fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok(Stranger { worker: row.try_get(0)?, seen_ago: seconds(row.try_get(1)?) }))
        .collect()
}

fn as_identity(row: &PgRow) -> Result<Identity, sqlx::Error> {
    let place: Option<String> = row.try_get(1)?;
    let is_complete = row.try_get(2)?;
    Ok(Identity { id: row.try_get(0)?, copied: place.map(|place| CopiedTo { place, is_complete }) })
}

struct BeginCopy<'a> {
    namespace: &'a str,
    place: &'a str,
}

impl Statement for BeginCopy<'_> {
    type Answer = CopiedTo;

    async fn send(&self, connection: &mut PgConnection) -> Result<CopiedTo, sqlx::Error> {
        sqlx::query(BEGIN_COPY).bind(self.namespace).bind(self.place).execute(&mut *connection).await?;
        let row = sqlx::query(COPIED).bind(self.namespace).fetch_one(connection).await?;
        Ok(CopiedTo { place: row.try_get(0)?, is_complete: row.try_get(1)? })
    }
}

struct CompleteCopy<'a> {
    namespace: &'a str,
}

impl Statement for CompleteCopy<'_> {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(COMPLETE_COPY).bind(self.namespace).execute(connection).await.map(drop)
    }
}

struct Renew<'a> {
    namespace: &'a str,
    identity: &'a str,
}

impl Statement for Renew<'_> {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(RENEW).bind(self.namespace).bind(self.identity).execute(connection).await.map(drop)
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
        let tables =
            "SELECT to_regclass('namespaces') IS NOT NULL, to_regclass('namespace_copies') IS NOT NULL";
        let (is_known, knows_copies): (bool, bool) = sqlx::query_as(tables).fetch_one(&mut *looking).await?;
        let row = match (is_known, knows_copies) {
            (false, _) => None,
            (true, false) => {
                sqlx::query(EARLIER_IDENTITY).bind(self.namespace).fetch_optional(&mut *looking).await?
            }
            (true, true) => sqlx::query(IDENTITY).bind(self.namespace).fetch_optional(&mut *looking).await?,
        };
        looking.rollback().await?;
        let identity = row.as_ref().map(as_identity).transpose()?;
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
