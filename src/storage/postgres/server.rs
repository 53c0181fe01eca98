//! What the server says about itself.

use sqlx::{PgConnection, Row};

use super::connection::Statement;

const ASK: &str = "SELECT
    current_setting('server_version'), current_setting('fsync') = 'on',
    current_setting('synchronous_commit') <> 'off', current_setting('full_page_writes') = 'on', pg_is_in_recovery(),
    current_setting('max_connections')::integer, current_setting('default_transaction_read_only') = 'on',
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), FALSE)";

/// What a worker depends on, as the server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one setting of the server")]
pub struct ServerFacts {
    /// Its version, such as `17.4`.
    pub version: String,
    /// It flushes its log to the disk: `fsync`.
    pub flushes: bool,
    /// It does so before it answers: `synchronous_commit` is not `off`.
    pub waits_for_flush: bool,
    /// It survives pages that were half written: `full_page_writes`.
    pub writes_full_pages: bool,
    /// It follows another server and takes no writes.
    pub is_standby: bool,
    /// Connections that it takes from everybody.
    pub max_connections: i32,
    /// Transactions of this user in this database write nothing: `default_transaction_read_only`.
    pub is_read_only: bool,
    /// This user may make tables in the schema where they belong.
    pub may_make_tables: bool,
}

pub(super) struct AskServer;

impl Statement for AskServer {
    type Answer = ServerFacts;

    async fn send(&self, connection: &mut PgConnection) -> Result<ServerFacts, sqlx::Error> {
        let row = sqlx::query(ASK).fetch_one(connection).await?;
        Ok(ServerFacts {
            version: row.try_get(0)?,
            flushes: row.try_get(1)?,
            waits_for_flush: row.try_get(2)?,
            writes_full_pages: row.try_get(3)?,
            is_standby: row.try_get(4)?,
            max_connections: row.try_get(5)?,
            is_read_only: row.try_get(6)?,
            may_make_tables: row.try_get(7)?,
        })
    }
}

/// Whether it takes writes: a standby and a read-only database do not. Fails as a write would if not.
pub(super) struct TakesWrites;

impl Statement for TakesWrites {
    type Answer = ();

    async fn send(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // Fails with 25006 where nothing can be written; where something can, nothing is.
        sqlx::query("DELETE FROM turns WHERE FALSE").execute(connection).await.map(drop)
    }
}
