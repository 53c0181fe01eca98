//! Identity and workers of a namespace. Asked rarely, so each call has a connection of its own.

use sqlx::{Connection, Row, SqliteConnection};
use throughline_actors::ports::store::{Mark, StoreError};

use super::{SqliteStore, look};
use crate::storage::{
    error,
    namespaces::{Beat, Peeked, Stranger, WORKER_COUNTS_FOR, seconds},
    text::integer,
};

const READING: &str = "reading which namespace the database belongs to";
const CLAIMING: &str = "noting which namespace the database belongs to";
const BEATING: &str = "noting which worker uses the database";
const LEAVING: &str = "noting that a worker does not use the database any more";

const IDENTITY: &str = "SELECT identity FROM namespaces WHERE namespace = $1";
const ENDED: &str = "SELECT count(*) FROM turns
    WHERE namespace = $1 AND workflow_id = $2 AND state IN ('saved', 'failed')";
const CLAIM: &str = "INSERT INTO namespaces (namespace, identity, created_at)
    VALUES ($1, $2, strftime('%Y-%m-%dT%H:%M:%f000000Z')) ON CONFLICT (namespace) DO NOTHING";
/// Rows of workers that vanished are kept for a day.
const BEAT: &str = "DELETE FROM namespace_workers
    WHERE namespace = $1 AND seen_at < strftime('%Y-%m-%dT%H:%M:%f000000Z', 'now', '-1 day');
    INSERT INTO namespace_workers (namespace, worker, log, seen_at)
    VALUES ($1, $2, $3, strftime('%Y-%m-%dT%H:%M:%f000000Z'))
    ON CONFLICT (namespace, worker) DO UPDATE SET log = excluded.log, seen_at = excluded.seen_at";
const STRANGERS: &str =
    "SELECT worker, (julianday('now') - julianday(seen_at)) * 86400.0 AS ago FROM namespace_workers
    WHERE namespace = $1 AND log <> $2 AND (julianday('now') - julianday(seen_at)) * 86400.0 < $3
    ORDER BY worker";
const MARK: &str = "SELECT log_sequence FROM namespace_marks WHERE namespace = $1";
const SET_MARK: &str = "INSERT INTO namespace_marks (namespace, log_sequence)
    SELECT $1, $3 WHERE $2 = 0 OR EXISTS (SELECT 1 FROM namespace_marks WHERE namespace = $1)
    ON CONFLICT (namespace) DO UPDATE SET log_sequence = excluded.log_sequence
    WHERE namespace_marks.log_sequence = $2";
const LEAVE: &str = "DELETE FROM namespace_workers WHERE namespace = $1 AND worker = $2";

impl SqliteStore {
    pub(in crate::storage) async fn identity(&self, namespace: &str) -> Result<Option<String>, StoreError> {
        self.ask(READING, async |connection| read(connection, namespace).await).await
    }

    pub(in crate::storage) async fn claim_identity(
        &self,
        namespace: &str,
        proposed: &str,
    ) -> Result<String, StoreError> {
        self.ask(CLAIMING, async |connection| {
            sqlx::query(CLAIM).bind(namespace).bind(proposed).execute(&mut *connection).await?;
            read(connection, namespace).await?.ok_or(sqlx::Error::RowNotFound)
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
            noted.execute(&mut *connection).await?;
            let counts = WORKER_COUNTS_FOR.as_secs_f64();
            let strangers = sqlx::query(STRANGERS).bind(namespace).bind(&beat.log).bind(counts);
            let rows = strangers.fetch_all(connection).await?;
            rows.iter()
                .map(|row| Ok(Stranger { worker: row.try_get(0)?, seen_ago: seconds(row.try_get(1)?) }))
                .collect()
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

    async fn ask<T>(
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

async fn read(connection: &mut SqliteConnection, namespace: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(IDENTITY).bind(namespace).fetch_optional(connection).await
}

/// See [`crate::storage::peek`].
pub(in crate::storage) async fn peek(url: &str, namespace: &str) -> Result<Peeked, StoreError> {
    let peeked = look::read(url, READING, async |connection| {
        let table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'namespaces'";
        let tables: i64 = sqlx::query_scalar(table).fetch_one(&mut *connection).await?;
        if tables == 0 { Ok(None) } else { read(connection, namespace).await }
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
