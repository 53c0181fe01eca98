//! The PostgreSQL store on a real server: the contract of every store, and what only a server can do.

mod copy;
mod earlier;
mod material;
mod namespaces;
mod outages;
mod rows;
mod schedules;
mod tls;
mod troubles;

use std::{
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::{Map, Value};
use sqlx::{Connection, PgConnection};
use throughline::storage::postgres::{Limits, PostgresStore};
use throughline_actors::{
    ports::{
        contract::store::{self as story, UnderTest},
        store::{
            Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
            ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
            TurnsQuery,
        },
    },
    store_contract,
};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId, event::context::Context};

use crate::postgres_server::PostgresServer;

/// Connections of each store: so that batches meet.
const CONNECTIONS: u32 = 3;

/// Stores on one database, called in turn, as several processes would.
struct Stores {
    all: Vec<PostgresStore>,
    calls: AtomicUsize,
    url: String,
}

impl Stores {
    /// On a new database of the server that all tests share.
    async fn new(count: usize) -> Option<Box<Self>> {
        let url = PostgresServer::shared().await?.database().await;
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(open(&url).await);
        }
        Some(Box::new(Self { all, calls: AtomicUsize::new(0), url }))
    }

    /// A client of the database that knows nothing of the store.
    async fn look(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }
}

/// Whose rows these are.
const NAMESPACE: &str = "test";

/// More than anything takes, whatever else the machine is doing.
const PATIENT: Limits =
    Limits { request: Duration::from_mins(2), lock: Duration::from_mins(1), connect: Duration::from_mins(1) };

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open_with(url, CONNECTIONS, NAMESPACE, PATIENT).await.unwrap()
}

impl Deref for Stores {
    type Target = PostgresStore;
    fn deref(&self) -> &PostgresStore {
        &self.all[self.calls.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}

#[async_trait::async_trait]
impl Store for Stores {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.deref().admit(batch).await
    }
    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        self.deref().start_held(query).await
    }
    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        self.deref().context(user, session, turns).await
    }
    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        self.deref().save(interaction).await
    }
    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.deref().fail(failing).await
    }
    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        self.deref().running(query).await
    }
    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        self.deref().opening(workflow).await
    }
    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        self.deref().ended_before(places).await
    }
    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        self.deref().end(workflow).await
    }
    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        self.deref().oldest_open().await
    }
    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        self.deref().forget_ended(ended_before, most).await
    }
    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        self.deref().restore(ended).await
    }
    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        self.deref().latest_turns(query).await
    }
    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.deref().open_turns().await
    }
    async fn mark(&self) -> Result<Mark, StoreError> {
        self.deref().mark().await
    }
    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        self.deref().set_mark(from, to).await
    }
    async fn ping(&self) -> Result<(), StoreError> {
        self.deref().ping().await
    }
}

impl UnderTest for Stores {
    async fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>) {
        self.deref().set_preferences(user, preferences).await.unwrap();
    }
    async fn delete_preferences(&self, user: &UserId, names: Option<&[String]>) -> u64 {
        self.deref().delete_preferences(user, names).await.unwrap()
    }
    async fn beside(&self) -> Box<dyn Store> {
        Box::new(PostgresStore::open_with(&self.url, CONNECTIONS, "another", PATIENT).await.unwrap())
    }
}

store_contract!(Stores::new(1));

/// Four processes with three connections each: whatever they do at the same time, every session keeps its order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_stores_on_one_database_keep_the_order_of_every_session_between_them() {
    let Some(stores) = Stores::new(4).await else { return };
    story::any_interleaving_keeps_the_order_of_every_session(&*stores).await;
    let Some(stores) = Stores::new(4).await else { return };
    story::any_interleaving_keeps_the_order_although_users_have_shares(&*stores).await;
}
