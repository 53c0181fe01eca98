//! A private PostgreSQL server for tests: own port, own data, gone when the tests are.
#![allow(unreachable_pub, dead_code)]

mod local;

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::{sync::OnceCell, time::Instant};

use self::local::Local;
use crate::harness::LOOK_AGAIN;

/// The superuser, and the password that every connection needs.
pub const USER: &str = "postgres";
pub const PASSWORD: &str = "canary-of-the-database";

/// SCRAM, the server's default, costs a client that was not optimised a third of a second for each connection; one test
/// uses it.
pub const AUTHENTICATION: &str = "password";

/// How long a server may take to answer. It needs less than a second on an idle machine.
const START_LIMIT: Duration = Duration::from_mins(1);

/// One for all tests that harm nobody. It need not survive a loss of power.
static SHARED: OnceCell<Option<PostgresServer>> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A server that runs, or was stopped.
pub struct PostgresServer {
    local: Local,
}

impl PostgresServer {
    /// The server that tests share, or says why this machine cannot have one: then `None`, unless `CI` is set, where
    /// leaving tests out would go unnoticed.
    pub async fn shared() -> Option<&'static Self> {
        SHARED.get_or_init(|| Self::start(&["fsync=off"])).await.as_ref()
    }

    /// A server of one's own, with these settings.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        let server = match Local::start(settings) {
            Ok(local) => Self { local },
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "{why}");
                eprintln!("left out: {why}");
                return None;
            }
        };
        server.answers().await;
        Some(server)
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connect("postgres").await;
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        connection.execute(sqlx::raw_sql(create)).await.expect("a database");
        self.url(&name)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable", self.local.port())
    }

    /// A client that knows nothing of the store.
    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.expect("a connection")
    }

    /// Ends it as an operator would: connections are closed, what they were doing is rolled back.
    pub fn stop(&mut self) {
        self.local.stop();
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.local.kill();
    }

    /// Starts it again, with the same data on the same port, and waits until it answers.
    pub async fn start_again(&mut self) {
        self.local.run();
        self.answers().await;
    }

    /// Nothing moves in it until [`Self::resume`].
    pub fn pause(&self) {
        self.local.pause();
    }

    pub fn resume(&self) {
        self.local.resume();
    }

    async fn answers(&self) {
        let deadline = Instant::now() + START_LIMIT;
        let url = self.url("postgres");
        while let Err(error) = PgConnection::connect(&url).await {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer: {error}\n{}", self.local.log());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
