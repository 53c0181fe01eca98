//! One database of a copy.

use std::time::Duration;

use throughline_actors::ports::store::{Store, StoreError};

use super::table::{Only, PageQuery, Row, Table};
use crate::storage::{
    Database, DatabaseError,
    postgres::{self, PostgresStore},
    sqlite::{self, SqliteStore},
};

/// Connections, of which one is used at a time.
const CONNECTIONS: u32 = 2;
/// Longest time that one statement may take: a page, or counting all rows of a table.
const STATEMENT_LIMIT: Duration = Duration::from_mins(10);

impl Database {
    /// As [`Self::open`], for statements that read many rows.
    pub async fn open_patiently(url: &str, namespace: &str) -> Result<Self, DatabaseError> {
        if url.starts_with("sqlite:") {
            let limits = sqlite::Limits { request: STATEMENT_LIMIT, ..sqlite::Limits::default() };
            Ok(Self::Sqlite(SqliteStore::open_with(url, CONNECTIONS, namespace, limits).await?))
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let limits = postgres::Limits { request: STATEMENT_LIMIT, ..postgres::Limits::default() };
            Ok(Self::Postgres(PostgresStore::open_with(url, CONNECTIONS, namespace, limits).await?))
        } else {
            Err(DatabaseError::Unknown)
        }
    }

    /// The rows behind one in the order of keys, or the first ones.
    pub(in crate::storage) async fn page(&self, query: PageQuery<'_>) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(store) => store.page(query).await,
            Self::Postgres(store) => store.page(query).await,
        }
    }

    /// The rows with the keys of these, in their order.
    pub(super) async fn same_keys(&self, table: &Table, rows: &[Row]) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(store) => store.same_keys(table, rows).await,
            Self::Postgres(store) => store.same_keys(table, rows).await,
        }
    }

    /// Adds those of the rows whose keys are not there, in one transaction. What was there stays as it was.
    pub(super) async fn add(&self, table: &Table, rows: &[Row]) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(store) => store.add(table, rows).await,
            Self::Postgres(store) => store.add(table, rows).await,
        }
    }

    /// How many rows the namespace has.
    pub(in crate::storage) async fn count(
        &self,
        table: &Table,
        only: Option<Only<'_>>,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(store) => store.count(table, only).await,
            Self::Postgres(store) => store.count(table, only).await,
        }
    }

    /// What is left of a row of another database when this one keeps it.
    pub(super) fn kept(&self, table: &Table, row: Row) -> Row {
        match self {
            Self::Sqlite(_) => row,
            Self::Postgres(_) => postgres::kept(table, row),
        }
    }

    /// Makes how far the log is known to be in the tables what it is in the other one, unless it is known here.
    pub(super) async fn take_mark(&self, other: &Self) -> Result<(), StoreError> {
        match other.mark().await?.sequence {
            0 => Ok(()),
            sequence => self.set_mark(0, sequence).await,
        }
    }
}
