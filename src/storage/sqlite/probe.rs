//! Whether the file can be written to at this moment.

use std::time::Duration;

use sqlx::Connection;
use throughline_actors::ports::store::StoreError;

use super::{file::DatabaseFile, write_lock::WriteLock};
use crate::storage::error;

/// How long the probe waits for the lock of another process: less than a readiness probe waits.
const LOCK_LIMIT: Duration = Duration::from_millis(400);

pub(super) const PROBING: &str = "trying to write";

/// Writes one page of the file as it was: a number in its header, which nothing here uses. That needs the lock, a writable
/// file and room on the disk, as every write does, and changes nothing that a query sees. It takes its turn among the
/// processes that write, so that it waits for the lock of strangers only.
pub(super) async fn write(file: &DatabaseFile) -> Result<(), StoreError> {
    let refuse = |e| error::from_sqlx(PROBING, e);
    let _turn = WriteLock::of(file.path()).enter().await;
    let mut connection = file.connect_briefly(LOCK_LIMIT).await.map_err(refuse)?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.map_err(refuse)?;
    let write = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
    sqlx::query(write).execute(&mut connection).await.map_err(refuse)?;
    connection.close().await.map_err(refuse)
}
