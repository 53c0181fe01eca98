//! Erasing rows, and what is left of them in the file.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _};
use throughline_actors::ports::store::{StoreError, StoreTrouble};
use tokio::time::sleep;

use super::SqliteStore;
use crate::storage::{
    copy::table::{Only, Table},
    erase::{AT_ONCE, delete},
};

const ERASING: &str = "erasing rows";
const OVERWRITING: &str = "rewriting the file";
/// How often it is tried to empty the write-ahead log, which a reader holds up.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

impl SqliteStore {
    /// Erases some rows, and overwrites them; how many.
    pub(in crate::storage) async fn erase(&self, table: &Table, only: Only<'_>) -> Result<u64, StoreError> {
        let (namespace, delete) = (self.file.namespace(), delete(table, only, '?'));
        self.ask(ERASING, async |connection| {
            sqlx::query("PRAGMA secure_delete = ON").execute(&mut *connection).await?;
            let deleted = sqlx::query(AssertSqlSafe(delete.as_str())).bind(&**namespace).bind(only.id);
            Ok(deleted.bind(AT_ONCE).execute(connection).await?.rows_affected())
        })
        .await
    }

    /// Rows that were replaced or deleted before left their texts in the free space of pages: the file is written again,
    /// and the log that led there is emptied.
    pub(in crate::storage) async fn overwrite_free_space(&self) -> Result<(), StoreError> {
        let is_empty = self.ask(OVERWRITING, async |connection| {
            // As large as the database: not in memory.
            sqlx::query("PRAGMA temp_store = FILE").execute(&mut *connection).await?;
            sqlx::query("VACUUM").execute(&mut *connection).await?;
            for _ in 0..ATTEMPTS {
                let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await?;
                if row.try_get::<i64, _>(0)? == 0 {
                    return Ok(true);
                }
                sleep(BETWEEN_ATTEMPTS).await;
            }
            Ok(false)
        });
        if is_empty.await? {
            return Ok(());
        }
        let source =
            Some("a process that reads keeps the write-ahead log from being emptied; run this again".into());
        Err(StoreError::Busy { context: OVERWRITING, trouble: StoreTrouble::Locked, source })
    }
}
