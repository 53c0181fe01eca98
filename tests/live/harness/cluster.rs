//! A nats-server, the stand-ins, a database file and some workers: what a deployment has, on loopback.

use std::path::{Path, PathBuf};

use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{Figures, Log, Program, Servers, Settings, StandIns, process::throughline, python, stored};

/// First token of every subject, as it is without configuration.
pub const NAMESPACE: &str = "throughline";
/// Where publishers may send without tokens.
pub const BARE: &str = "throughline.v1.user_input_received";

pub struct Cluster {
    // Workers go first, so that they do not complain about what they miss.
    pub workers: Vec<Program>,
    pub stand_ins: StandIns,
    pub client: async_nats::Client,
    pub nats: Servers,
    dir: tempfile::TempDir,
    database: PathBuf,
    database_url: String,
}

/// What a deployment is made of, if not of one server and files in a folder of the cluster's own.
#[derive(Default)]
pub struct Parts<'a> {
    pub nats: Option<&'a Path>,
    pub database: Option<&'a Path>,
    /// A server instead of a file.
    pub database_url: Option<&'a str>,
    /// Three servers with accounts instead of one without.
    pub three_servers: bool,
}

impl Cluster {
    /// Starts everything, or says why this machine cannot.
    pub async fn start(workers: usize, settings: &Settings) -> Option<Self> {
        Self::start_with(workers, settings, &[]).await
    }

    /// The same, with arguments for the stand-ins.
    pub async fn start_with(workers: usize, settings: &Settings, sandbox: &[&str]) -> Option<Self> {
        Self::start_on(&Parts::default(), workers, settings, sandbox).await
    }

    /// The same, of these parts.
    pub async fn start_on(
        parts: &Parts<'_>,
        workers: usize,
        settings: &Settings,
        sandbox: &[&str],
    ) -> Option<Self> {
        let nats = if parts.three_servers { Servers::three().await? } else { Servers::one(parts.nats)? };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stand_ins = StandIns::start(dir.path(), sandbox).await;
        let client = nats.connect().await;
        let database = parts.database.unwrap_or(dir.path()).join("throughline.db");
        let file = format!("sqlite://{}", database.display());
        let database_url = parts.database_url.unwrap_or(&file).to_owned();
        let mut cluster = Self { workers: Vec::new(), stand_ins, client, nats, dir, database, database_url };
        let settings = settings
            .clone()
            .with(&cluster.nats.settings())
            .with(&format!("database.url = {:?}", cluster.database_url));
        std::fs::write(cluster.config(), settings.over(&cluster.stand_ins.config)).expect("a file");
        let mut setup = cluster.run("setup", &["setup"]);
        let status = setup.ended(super::SOON).await;
        assert!(status.success(), "setup: {}", setup.stderr());
        for _ in 0..workers {
            cluster.add_worker();
        }
        Some(cluster)
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("throughline.toml")
    }

    pub fn database(&self) -> PathBuf {
        self.database.clone()
    }

    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The workflow id of every row of `interactions`, in order.
    pub async fn stored(&self) -> Vec<String> {
        stored::ids(&self.database_url).await
    }

    /// Starts `throughline` with the cluster's configuration.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Program {
        self.run_with(name, arguments, &[])
    }

    fn run_with(&self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Program {
        let mut command = throughline();
        command.arg("--config").arg(self.config()).args(arguments).envs(environment.iter().copied());
        Program::start(name, self.dir.path(), &mut command)
    }

    pub fn add_worker(&mut self) {
        self.add_worker_with(&[]);
    }

    /// A worker with settings of its own, as in `THROUGHLINE_GENERATION__STREAM`.
    pub fn add_worker_with(&mut self, environment: &[(&str, &str)]) {
        let name = format!("worker{}", self.workers.len());
        self.workers.push(self.run_with(&name, &["worker"], environment));
    }

    pub fn assert_workers_run(&mut self) {
        for worker in &mut self.workers {
            assert!(worker.is_running(), "a worker ended:\n{}", worker.stderr());
            let log = worker.stderr();
            assert!(!log.contains("panicked"), "a worker panicked:\n{log}");
        }
    }

    /// The event bus crashes and comes back.
    pub fn crash_nats(&mut self) {
        self.kill_nats();
        self.revive_nats();
    }

    /// The event bus crashes.
    pub fn kill_nats(&mut self) {
        self.nats.kill();
    }

    /// It comes back with the same stores on the same ports.
    pub fn revive_nats(&mut self) {
        self.nats.restart();
    }

    pub async fn log(&self) -> Log {
        Log::follow(&self.client, NAMESPACE).await
    }

    /// Every row of `interactions` in the file, read by another SQLite.
    pub fn rows(&self) -> Vec<Value> {
        python::rows(&self.database())
    }

    /// What became of `sent`, as far as the log was read.
    pub async fn figures(
        &self,
        row: u8,
        fault: impl Into<String>,
        faults: usize,
        log: &Log,
        sent: &[String],
    ) -> Figures {
        let id = |row: &Value| row["workflow_id"].as_str().expect("an id").to_owned();
        let rows: Vec<_> = self.rows().iter().map(id).collect();
        let calls = self.stand_ins.count("model").await;
        Figures::count(row, fault, faults, log, sent).rows(log, sent, rows).calls(calls)
    }

    /// Publishes one message and waits until it is stored.
    pub async fn publish(&self, subject: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        self.publish_all(vec![message(subject, headers, body)]).await;
    }

    /// Publishes in order, and waits until everything is stored.
    pub async fn publish_all(&self, messages: Vec<jetstream::message::OutboundMessage>) {
        let jetstream = jetstream::new(self.client.clone());
        for some in messages.chunks(64) {
            let mut acks = Vec::with_capacity(some.len());
            for message in some {
                let headers = message.headers.clone().unwrap_or_default();
                let sent =
                    jetstream.publish_with_headers(message.subject.clone(), headers, message.payload.clone());
                acks.push(sent.await.expect("sent").into_future());
            }
            try_join_all(acks).await.expect("stored");
        }
    }

    /// Publishes what a user said, bare.
    pub async fn say(&self, workflow: &str, user: &str, session: &str, text: &str) {
        self.publish_all(vec![said(workflow, user, session, text)]).await;
    }
}

/// A message to publish.
pub fn message(
    subject: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> jetstream::message::OutboundMessage {
    let mut map = HeaderMap::new();
    for &(name, value) in headers {
        map.append(name, value);
    }
    jetstream::message::OutboundMessage { subject: subject.into(), payload: body.into(), headers: Some(map) }
}

/// What a user said, as a bare message.
pub fn said(workflow: &str, user: &str, session: &str, text: &str) -> jetstream::message::OutboundMessage {
    let body = json!({"user_id": user, "session_id": session, "user_input": text, "workflow_id": workflow});
    message(BARE, &[], body.to_string())
}
