//! Erasing rows.

use sqlx::{AssertSqlSafe, PgConnection};
use throughline_actors::ports::store::StoreError;

use super::{PostgresStore, connection::Statement};
use crate::storage::{
    copy::table::{Only, Table},
    erase::{AT_ONCE, delete},
};

impl PostgresStore {
    /// Erases some rows; how many.
    pub(in crate::storage) async fn erase(&self, table: &Table, only: Only<'_>) -> Result<u64, StoreError> {
        self.ask("erasing rows", &Erase { namespace: &self.namespace, table, only }).await
    }

    /// Frees what dead rows take. The server writes over it when it needs the room.
    pub(in crate::storage) async fn overwrite_free_space(&self) -> Result<(), StoreError> {
        self.ask("freeing the room of dead rows", &Vacuum).await
    }
}

struct Erase<'a> {
    namespace: &'a str,
    table: &'a Table,
    only: Only<'a>,
}

impl Statement for Erase<'_> {
    type Answer = u64;

    async fn send(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let delete = sqlx::query(AssertSqlSafe(delete(self.table, self.only, '$'))).bind(self.namespace);
        let deleted = delete.bind(self.only.id).bind(i64::from(AT_ONCE)).execute(connection).await?;
        Ok(deleted.rows_affected())
    }
}

struct Vacuum;

impl Statement for Vacuum {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // A role that does not own the tables is told so in a notice, and that is all.
        sqlx::raw_sql("VACUUM turns, interactions, preferences").execute(connection).await.map(drop)
    }
}
