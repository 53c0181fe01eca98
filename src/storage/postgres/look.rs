//! Looks at a database without changing it.

use sqlx::{Connection, PgConnection};
use throughline_actors::ports::store::StoreError;

use super::{
    ServerFacts,
    connection::{OPENING, Statement},
    migrate::{check_encoding, migrations},
    namespaces::look_once,
    server::AskServer,
};
use crate::storage::look::{Applied, Tables};

struct Look;

impl Statement for Look {
    type Answer = (ServerFacts, Tables);

    async fn send(&self, connection: &mut PgConnection) -> Result<Self::Answer, sqlx::Error> {
        // Before the transaction, in which everything is read-only.
        let facts = AskServer.send(connection).await?;
        let mut looking = connection.begin().await?;
        sqlx::query("SET TRANSACTION READ ONLY").execute(&mut *looking).await?;
        check_encoding(&mut looking).await?;
        let known = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
        let is_known: bool = known.fetch_one(&mut *looking).await?;
        let applied: Vec<Applied> = if is_known {
            let applied = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";
            sqlx::query_as(applied).fetch_all(&mut *looking).await?
        } else {
            Vec::new()
        };
        looking.rollback().await?;
        Ok((facts, Tables::compare(&migrations(), &applied)?))
    }
}

/// See [`crate::storage::look`].
pub(in crate::storage) async fn look(url: &str) -> Result<(ServerFacts, Tables), StoreError> {
    look_once(OPENING, url, &Look).await
}
