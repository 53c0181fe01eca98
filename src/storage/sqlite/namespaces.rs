//! Identity and workers of a namespace. Asked rarely, so each call has a connection of its own.

use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};
use throughline_actors::ports::store::{Mark, StoreError};

use super::{SqliteStore, look};
use crate::storage::{
    error,
    namespaces::{Beat, CALLS_COUNT_FOR, CopiedTo, Identity, Peeked, Stranger, WORKER_COUNTS_FOR, seconds},
    text::integer,
};

const READING: &str = "reading which namespace the database belongs to";
const CLAIMING: &str = "noting which namespace the database belongs to";
const BEATING: &str = "noting which worker uses the database";
const COPYING: &str = "noting where the namespace's rows are copied to";
const LEAVING: &str = "noting that a worker does not use the database any more";

const IDENTITY: &str = "SELECT n.identity, c.copied_to, c.completed_at IS NOT NULL
    FROM namespaces AS n LEFT JOIN namespace_copies AS c ON c.namespace = n.namespace WHERE n.namespace = $1";
/// Of a database that does not know yet that rows may be copied.
const EARLIER_IDENTITY: &str = "SELECT identity, NULL, FALSE FROM namespaces WHERE namespace = $1";
const BEGIN_COPY: &str = "INSERT INTO namespace_copies (namespace, copied_to) VALUES ($1, $2)
    ON CONFLICT (namespace) DO NOTHING";
const COPIED: &str = "SELECT copied_to, completed_at IS NOT NULL FROM namespace_copies WHERE namespace = $1";
const COMPLETE_COPY: &str = "UPDATE namespace_copies SET completed_at = strftime('%Y-%m-%dT%H:%M:%f000000Z')
    WHERE namespace = $1 AND completed_at IS NULL";
const RENEW: [&str; 2] = [
    "UPDATE namespaces SET identity = $2 WHERE namespace = $1",
    "DELETE FROM namespace_copies WHERE namespace = $1",
];
const ENDED: &str = "SELECT count(*) FROM turns
    WHERE namespace = $1 AND workflow_id = $2 AND state IN ('saved', 'failed')";
const CLAIM: &str = "INSERT INTO namespaces (namespace, identity, created_at)
    VALUES ($1, $2, strftime('%Y-%m-%dT%H:%M:%f000000Z')) ON CONFLICT (namespace) DO NOTHING";
/// Rows of workers that vanished are kept for a day.
const BEAT: &str = "DELETE FROM namespace_workers
    WHERE namespace = $1 AND seen_at < strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now', '-1 day');
    INSERT INTO namespace_workers (namespace, worker, log, calls, seen_at)
    VALUES ($1, $2, $3, $4, strftime('%Y-%m-%dT%H:%M:%f000000Z'))
    ON CONFLICT (namespace, worker) DO UPDATE SET
        log = excluded.log, calls = excluded.calls, seen_at = excluded.seen_at";
const CALLS: &str = "SELECT coalesce(sum(coalesce(calls, $3)), 0) FROM namespace_workers
    WHERE namespace = $1 AND log = $2 AND (julianday('now') - julianday(seen_at)) * 86400.0 < $4";
const STRANGERS: &str =
    "SELECT worker, (julianday('now') - julianday(seen_at)) * 86400.0 AS ago FROM namespace_workers
    WHERE namespace = $1 AND log <> $2 AND (julianday('now') - julianday(seen_at)) * 86400.0 < $3
    ORDER BY worker";
/// A log that there is not.
const NO_LOG: &str = "";
const MARK: &str = "SELECT log_sequence FROM namespace_marks WHERE namespace = $1";
const SET_MARK: &str = "INSERT INTO namespace_marks (namespace, log_sequence)
    SELECT $1, $3 WHERE $2 = 0 OR EXISTS (SELECT 1 FROM namespace_marks WHERE namespace = $1)
    ON CONFLICT (namespace) DO UPDATE SET log_sequence = excluded.log_sequence
    WHERE namespace_marks.log_sequence = $2";
const LEAVE: &str = "DELETE FROM namespace_workers WHERE namespace = $1 AND worker = $2";

impl SqliteStore {
    pub(in crate::storage) async fn identity(&self, namespace: &str) -> Result<Option<Identity>, StoreError> {
        self.ask(READING, async |connection| read(connection, IDENTITY, namespace).await).await
    }

    pub(in crate::storage) async fn claim_identity(
        &self,
        namespace: &str,
        proposed: &str,
    ) -> Result<String, StoreError> {
        self.ask(CLAIMING, async |connection| {
            sqlx::query(CLAIM).bind(namespace).bind(proposed).execute(&mut *connection).await?;
            let identity = read(connection, IDENTITY, namespace).await?;
            identity.map(|identity| identity.id).ok_or(sqlx::Error::RowNotFound)
        })
        .await
    }

    pub(in crate::storage) async fn beat(
        &self,
        namespace: &str,
        beat: &Beat,
    ) -> Result<Vec<Stranger>, StoreError> {
        self.ask(BEATING, async |connection| {
            let noted = sqlx::query(BEAT).bind(namespace).bind(&beat.worker).bind(&beat.log);
            let noted = noted.bind(i64::from(beat.calls));
            noted.execute(&mut *connection).await?;
            strangers(connection, namespace, &beat.log).await
        })
        .await
    }

    pub(in crate::storage) async fn calls(
        &self,
        namespace: &str,
        log: &str,
        own: u32,
    ) -> Result<i64, StoreError> {
        self.ask(READING, async |connection| {
            let calls = sqlx::query_scalar(CALLS).bind(namespace).bind(log).bind(i64::from(own));
            calls.bind(CALLS_COUNT_FOR.as_secs_f64()).fetch_one(connection).await
        })
        .await
    }

    pub(in crate::storage) async fn workers(&self, namespace: &str) -> Result<Vec<Stranger>, StoreError> {
        self.ask(READING, async |connection| strangers(connection, namespace, NO_LOG).await).await
    }

    pub(in crate::storage) async fn begin_copy(
        &self,
        namespace: &str,
        place: &str,
    ) -> Result<CopiedTo, StoreError> {
        self.ask(COPYING, async |connection| {
            sqlx::query(BEGIN_COPY).bind(namespace).bind(place).execute(&mut *connection).await?;
            let row = sqlx::query(COPIED).bind(namespace).fetch_one(connection).await?;
            Ok(CopiedTo { place: row.try_get(0)?, is_complete: row.try_get(1)? })
        })
        .await
    }

    pub(in crate::storage) async fn complete_copy(&self, namespace: &str) -> Result<(), StoreError> {
        self.ask(COPYING, async |connection| {
            sqlx::query(COMPLETE_COPY).bind(namespace).execute(connection).await.map(drop)
        })
        .await
    }

    pub(in crate::storage) async fn renew_identity(
        &self,
        namespace: &str,
        identity: &str,
    ) -> Result<(), StoreError> {
        self.ask(CLAIMING, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for renew in RENEW {
                sqlx::query(renew).bind(namespace).bind(identity).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        })
        .await
    }

    pub(in crate::storage) async fn leave(&self, namespace: &str, worker: &str) -> Result<(), StoreError> {
        self.ask(LEAVING, async |connection| {
            sqlx::query(LEAVE).bind(namespace).bind(worker).execute(connection).await.map(drop)
        })
        .await
    }

    pub(super) async fn read_mark(&self) -> Result<Mark, StoreError> {
        self.ask("reading how far the log is in the database", async |connection| {
            let sequence: Option<i64> =
                sqlx::query_scalar(MARK).bind(&**self.file.namespace()).fetch_optional(connection).await?;
            // One file has no server that could be another one.
            Ok(Mark { sequence: sequence.map_or(0, i64::unsigned_abs), server: String::new() })
        })
        .await
    }

    pub(super) async fn move_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.ask("noting how far the log is in the database", async |connection| {
            let moved =
                sqlx::query(SET_MARK).bind(&**self.file.namespace()).bind(integer(from)).bind(integer(to));
            moved.execute(connection).await.map(drop)
        })
        .await
    }

    pub(super) async fn ask<T>(
        &self,
        context: &'static str,
        ask: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let asked = async {
            let mut connection = self.file.connect().await?;
            let answer = ask(&mut connection).await;
            connection.close().await?;
            answer
        };
        self.queues.in_time(context, async { asked.await.map_err(|e| error::from_sqlx(context, e)) }).await
    }
}

async fn read(
    connection: &mut SqliteConnection,
    identity: &'static str,
    namespace: &str,
) -> Result<Option<Identity>, sqlx::Error> {
    let row = sqlx::query(identity).bind(namespace).fetch_optional(connection).await?;
    row.as_ref().map(as_identity).transpose()
}

fn as_identity(row: &SqliteRow) -> Result<Identity, sqlx::Error> {
    let place: Option<String> = row.try_get(1)?;
    let is_complete = row.try_get(2)?;
    Ok(Identity { id: row.try_get(0)?, copied: place.map(|place| CopiedTo { place, is_complete }) })
}

/// Workers of other logs than this one.
async fn strangers(
    connection: &mut SqliteConnection,
    namespace: &str,
    log: &str,
) -> Result<Vec<Stranger>, sqlx::Error> {
    let counts = WORKER_COUNTS_FOR.as_secs_f64();
    let rows = sqlx::query(STRANGERS).bind(namespace).bind(log).bind(counts).fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok(Stranger { worker: row.try_get(0)?, seen_ago: seconds(row.try_get(1)?) }))
        .collect()
}

/// See [`crate::storage::peek`].
pub(in crate::storage) async fn peek(url: &str, namespace: &str) -> Result<Peeked, StoreError> {
    let peeked = look::read(url, READING, async |connection| {
        let tables = "SELECT count(*) FROM sqlite_master
            WHERE type = 'table' AND name IN ('namespaces', 'namespace_copies')";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut *connection).await?;
        match tables {
            0 => Ok(None),
            1 => read(connection, EARLIER_IDENTITY, namespace).await,
            _ => read(connection, IDENTITY, namespace).await,
        }
    });
    Ok(match peeked.await? {
        None => Peeked::Missing,
        Some(identity) => identity.map_or(Peeked::Nothing, Peeked::Identity),
    })
}

/// See [`crate::storage::peek_end`].
pub(in crate::storage) async fn peek_end(
    url: &str,
    namespace: &str,
    workflow: &str,
) -> Result<bool, StoreError> {
    let known = look::read(url, READING, async |connection| {
        let known: i64 =
            sqlx::query_scalar(ENDED).bind(namespace).bind(workflow).fetch_one(connection).await?;
        Ok(known > 0)
    });
    Ok(known.await?.unwrap_or(false))
}
