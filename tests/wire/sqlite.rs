//! The SQLite store: the contract of every store, and what only a file can do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{ops::Deref, path::Path, time::Duration};

use serde_json::{Map, Value, json};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use throughline::storage::sqlite::{Limits, SqliteStore};
use throughline_actors::{
    ports::{
        contract::store::UnderTest,
        store::{Admission, Admitted, Closed, Interaction, Store, StoreError, Verdict},
    },
    store_contract,
};
use throughline_schemas::{
    FinishReason, SessionId, Timestamp, Usage, Usd, UserId, WorkflowId,
    event::{context::Context, generation::Response, input::Request},
};

/// Two readers, so that the contract also sees them at work at the same time.
const READERS: u32 = 2;

/// A store in a directory that goes away with it.
struct Fresh {
    store: Wrapped,
    _directory: TempDir,
}

impl Fresh {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Wrapped(SqliteStore::open(&url(directory.path()), READERS).await.unwrap());
        Self { store, _directory: directory }
    }
}

impl Deref for Fresh {
    type Target = Wrapped;
    fn deref(&self) -> &Wrapped {
        &self.store
    }
}

/// Only here because of Rust's orphan rule.
struct Wrapped(SqliteStore);

#[async_trait::async_trait]
impl Store for Wrapped {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.0.admit(batch).await
    }
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.0.context(user, session, turns).await
    }
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.0.save(interaction).await
    }
    async fn fail(&self, w: &WorkflowId, s: &SessionId, at: Timestamp) -> Result<Closed, StoreError> {
        self.0.fail(w, s, at).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.0.ping().await
    }
}

impl UnderTest for Wrapped {
    async fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>) {
        self.0.set_preferences(user, preferences, at(0)).await.unwrap();
    }
}

store_contract!(Fresh::new());

fn url(directory: &Path) -> String {
    format!("sqlite://{}/store.db", directory.display())
}
fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_760_000_000_000 + ms)
}
