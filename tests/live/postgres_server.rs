//! A private PostgreSQL server for tests: own port, own data, gone when the tests are.
#![allow(unreachable_pub, dead_code)]

mod local;

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};
use testcontainers::ImageExt;
use tokio::{sync::OnceCell, time::Instant};

use self::local::Local;
use crate::{
    containers::{self, Contained, Kind},
    harness::{LOOK_AGAIN, free_port, left_out},
};

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
    way: Way,
    port: u16,
}

enum Way {
    Container(Contained),
    Local(Local),
}

/// Ports that are tried.
const PORTS: usize = 3;
/// What the server says when another program has its port.
const PORT_TAKEN: &str = "Address already in use";

impl Way {
    /// In a container if one can be had, else from local programs; says why if neither.
    fn start(port: u16, settings: &[&str]) -> Result<Self, String> {
        let Some(image) = Kind::Postgres.image() else {
            return Local::start(port, settings).map(Self::Local);
        };
        let arguments = settings.iter().flat_map(|&setting| ["-c", setting]);
        let arguments: Vec<&str> = std::iter::once("postgres").chain(arguments).collect();
        let contained = Contained::start(image, (port, 5432), |request| {
            request
                .with_env_var("POSTGRES_PASSWORD", PASSWORD)
                .with_env_var("POSTGRES_HOST_AUTH_METHOD", AUTHENTICATION)
                .with_cmd(arguments)
        });
        contained.map(Self::Container).or_else(|why| {
            containers::fall_back(&why);
            Local::start(port, settings).map(Self::Local)
        })
    }
}

impl PostgresServer {
    /// The server that tests share, or says why this machine cannot have one: then `None`, unless `CI` is set, where
    /// leaving tests out would go unnoticed.
    pub async fn shared() -> Option<&'static Self> {
        SHARED.get_or_init(|| Self::start(&["fsync=off"])).await.as_ref()
    }

    /// A server of one's own, with these settings.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        Self::started(|port| Way::start(port, settings)).await
    }

    /// A server of one's own that takes TLS, which not every build does: in a container, else from local programs, else
    /// left out.
    pub async fn start_with_tls() -> Option<Self> {
        let server = Self::start(&[]).await?;
        if server.takes_tls().await {
            return Some(server);
        }
        let server = Self::started(|port| Local::start(port, &[]).map(Way::Local)).await?;
        if server.takes_tls().await {
            return Some(server);
        }
        left_out::say("no PostgreSQL here was built with TLS");
        None
    }

    /// Speaks TLS from now on, with `cert.pem` and `key.pem` of a folder of this machine. Whoever has a connection keeps it.
    pub async fn take_certificate(&self, dir: &Path) {
        let mut operator = self.connect("postgres").await;
        // The server reads its certificate from its own folder, which may be in a container.
        for file in ["cert.pem", "key.pem"] {
            let text = std::fs::read_to_string(dir.join(file)).expect("a certificate");
            let write = format!(
                "COPY (SELECT unnest(string_to_array('{}', E'\\n'))) TO PROGRAM 'umask 077; cat > {file}'",
                text.trim()
            );
            operator.execute(sqlx::raw_sql(AssertSqlSafe(write))).await.expect("it is written");
        }
        for setting in [
            "ALTER SYSTEM SET ssl_cert_file = 'cert.pem'",
            "ALTER SYSTEM SET ssl_key_file = 'key.pem'",
            "ALTER SYSTEM SET ssl = on",
        ] {
            operator.execute(setting).await.expect("it is set");
        }
        operator.execute("SELECT pg_reload_conf()").await.expect("it is read again");
    }

    /// On a port that is free; another program may take it meanwhile, and then it is another one.
    async fn started(way: impl Fn(u16) -> Result<Way, String>) -> Option<Self> {
        for tried in 1..=PORTS {
            let port = free_port();
            let server = match way(port) {
                Ok(way) => Self { way, port },
                Err(why) => {
                    left_out::must_run(&why);
                    return None;
                }
            };
            match server.answers().await {
                Ok(()) => return Some(server),
                Err(why) => assert!(tried < PORTS && server.log().contains(PORT_TAKEN), "{why}"),
            }
        }
        None
    }

    async fn takes_tls(&self) -> bool {
        let library = "SELECT current_setting('ssl_library')";
        let row = self.connect("postgres").await.fetch_one(library).await.expect("a setting");
        !row.get::<String, _>(0).is_empty()
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        self.url(&self.new_database().await)
    }

    /// The name of one.
    pub async fn new_database(&self) -> String {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        self.create(&name).await;
        name
    }

    /// An empty one of this name.
    pub async fn create(&self, name: &str) {
        self.operate(&[&format!("CREATE DATABASE {name}")]).await;
    }

    /// A copy of a database as it is now, under a new name; who uses it loses the connection for a moment.
    pub async fn copy_of(&self, database: &str) -> String {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        self.operate(&[
            &format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"),
            &format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
            ),
            &format!("CREATE DATABASE {name} TEMPLATE {database}"),
            &format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"),
        ])
        .await;
        name
    }

    /// A database that nobody uses becomes what another one is, or empty.
    pub async fn replace(&self, database: &str, by: Option<&str>) {
        let template = by.unwrap_or("template1");
        self.operate(&[
            &format!("DROP DATABASE {database}"),
            &format!("CREATE DATABASE {database} TEMPLATE {template}"),
        ])
        .await;
    }

    /// A database that nobody uses gets another name.
    pub async fn rename(&self, database: &str, to: &str) {
        self.operate(&[&format!("ALTER DATABASE {database} RENAME TO {to}")]).await;
    }

    async fn operate(&self, statements: &[&str]) {
        let mut operator = self.connect("postgres").await;
        for &statement in statements {
            let done = operator.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A client that knows nothing of the store.
    pub async fn connect(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.expect("a connection")
    }

    /// Ends it as an operator would: connections are closed, what they were doing is rolled back.
    pub fn stop(&mut self) {
        match &mut self.way {
            Way::Container(container) => container.stop(),
            Way::Local(local) => local.stop(),
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        match &mut self.way {
            Way::Container(container) => container.kill(),
            Way::Local(local) => local.kill(),
        }
    }

    /// Starts it again, with the same data on the same port, and waits until it answers.
    pub async fn start_again(&mut self) {
        match &mut self.way {
            Way::Container(container) => container.start_again(),
            Way::Local(local) => local.run(),
        }
        self.answers().await.expect("it starts again");
    }

    /// Nothing moves in it until [`Self::resume`].
    pub fn pause(&self) {
        match &self.way {
            Way::Container(container) => container.pause(),
            Way::Local(local) => local.pause(),
        }
    }

    pub fn resume(&self) {
        match &self.way {
            Way::Container(container) => container.resume(),
            Way::Local(local) => local.resume(),
        }
    }

    async fn answers(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        let url = self.url("postgres");
        while let Err(error) = PgConnection::connect(&url).await {
            if Instant::now() >= deadline || self.log().contains(PORT_TAKEN) {
                return Err(format!("PostgreSQL does not answer: {error}\n{}", self.log()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    fn log(&self) -> String {
        match &self.way {
            Way::Container(container) => container.log(),
            Way::Local(local) => local.log(),
        }
    }
}
