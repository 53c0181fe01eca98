//! What an onlooker asks of a PostgreSQL database.

use sqlx::PgConnection;
use throughline_actors::ports::store::{ListedTurn, OpenTurns, StoreError, TurnsQuery};

use super::{
    Limits,
    connection::{Connections, Statement},
    record::{AskOpen, List},
};

/// See [`crate::storage::Onlooker`].
#[derive(Debug)]
pub(in crate::storage) struct PostgresOnlooker(Connections);

/// Are there the functions that lists are made by?
struct AskLists;

impl Statement for AskLists {
    type Answer = bool;

    async fn send(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT to_regproc('throughline_list') IS NOT NULL").fetch_one(connection).await
    }
}

impl PostgresOnlooker {
    pub(in crate::storage) fn new(url: &str, connections: u32) -> Result<Self, StoreError> {
        Connections::new(url, connections, Limits::default()).map(Self)
    }

    pub(in crate::storage) async fn has_lists(&self) -> Result<bool, sqlx::Error> {
        self.ask(&AskLists).await
    }

    pub(in crate::storage) async fn latest_turns(
        &self,
        namespace: &str,
        query: &TurnsQuery,
    ) -> Result<Vec<ListedTurn>, sqlx::Error> {
        self.ask(&List(namespace, query)).await
    }

    pub(in crate::storage) async fn open_turns(&self, namespace: &str) -> Result<OpenTurns, sqlx::Error> {
        self.ask(&AskOpen(namespace)).await
    }

    pub(in crate::storage) fn close(&self) {
        self.0.close();
    }

    async fn ask<S: Statement>(&self, statement: &S) -> Result<S::Answer, sqlx::Error> {
        let lease = self.0.get().await?;
        self.0.run(lease, statement).await
    }
}
