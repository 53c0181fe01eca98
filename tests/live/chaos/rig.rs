//! Everything that takes part in a run, and its ledgers.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Plan,
    faults::{Fault, Schedule},
};
use crate::harness::{
    Cluster, Program, Settings, cluster::NAMESPACE, eventually, process::throughline, reaper,
};

/// Whoever wakes up goes on with what nobody has claimed, and asks again after a second; meanwhile the message may come
/// to another, or to itself again.
const WAKING: Duration = Duration::from_secs(2);
/// How long the publisher tries to publish one message.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Every workflow ends within this time of the end of the faults (invariant 1 of the fault matrix).
pub const RECOVERY: Duration = Duration::from_mins(1);
/// How long one Python program may take to finish what it has.
const FINISH: Duration = Duration::from_secs(20);
/// How long the reader may take for a log of ten minutes, beside what it waits for.
const READING: Duration = Duration::from_mins(3);
/// A server that comes back remembers a little less than everything, and gives what it does not remember to have been
/// answered for to somebody again: at once, or after the acknowledgement wait (3 s, see `Settings`).
const RIPPLE: Duration = Duration::from_secs(4);
/// A stopped worker is gone by then: its grace period and some.
const STOPPED: Duration = Duration::from_secs(15);
/// What workers know that nobody else may ever read.
pub const CANARY: &str = "canary-2f9d8c71";

/// One message, as its publisher knows it.
#[derive(Debug, Deserialize)]
pub struct Published {
    pub id: String,
    pub session: usize,
    pub turn: usize,
    pub state: String,
    pub tries: u32,
    pub at: f64,
}

#[derive(Deserialize)]
struct PublisherLedger {
    ledger: Vec<Published>,
    repeated: u64,
}

/// One model call, as the model knows it.
#[derive(Debug, Deserialize)]
pub struct Call {
    pub id: String,
    pub worker: String,
    pub began: f64,
    pub fate: Option<String>,
}

/// One event, as a reader of the log knows it.
#[derive(Debug, Deserialize)]
pub struct Logged {
    pub workflow: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub stream: String,
    pub sequence: u64,
    pub at: f64,
}

#[derive(Deserialize)]
struct ReaderLedger {
    events: Vec<Logged>,
    dead: Vec<Value>,
}

/// What was heard of ends as they were published.
#[derive(Debug, Deserialize)]
pub struct Watched {
    pub heard: u64,
    pub without_row: Vec<String>,
}

/// Something that may have cost somebody a call.
pub struct Disturbance {
    /// The worker that was disturbed; nobody in particular for a crash of NATS.
    pub worker: Option<String>,
    pub from: f64,
    pub until: f64,
}

/// What everybody knows after a run.
pub struct Ledgers {
    pub published: Vec<Published>,
    pub repeated: u64,
    pub calls: Vec<Call>,
    pub events: Vec<Logged>,
    pub dead: Vec<Value>,
    pub rows: Vec<Value>,
    pub watched: Watched,
    pub disturbances: Vec<Disturbance>,
    /// In words, with times.
    pub faults: Vec<String>,
    /// When the last fault was over.
    pub calm_at: f64,
    /// Largest resident set of any worker, in KiB.
    pub peak_rss_kib: u64,
    /// Where the canary was found.
    pub leaks: Vec<String>,
}

pub struct Run<'a> {
    python: &'a Path,
    cluster: Cluster,
    model: Program,
    model_url: String,
    http: reqwest::Client,
    /// Names of the workers, by place.
    places: Vec<String>,
    /// Workers that were told to stop.
    stopping: Vec<Program>,
    started: u32,
    disturbances: Vec<Disturbance>,
    faults: Vec<String>,
    began: f64,
    peak_rss_kib: u64,
}

/// Seconds since 1970, as the other programs have them.
#[expect(clippy::disallowed_methods, reason = "ledgers of several processes are compared by the wall clock")]
fn now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs_f64()
}

fn client_script(name: &str) -> String {
    format!("{}/tests/live/client/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl<'a> Run<'a> {
    pub async fn start(python: &'a Path, plan: &Plan) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(python);
        command.arg(client_script("chaos_model.py"));
        command.args([plan.seed.to_string(), plan.model_faults.to_string()]);
        let model = Program::start("model", dir.path(), &mut command);
        let model_url =
            eventually("the model listens", async || model.stdout().lines().next().map(str::to_owned)).await;
        let settings = Settings::new("[stages.generation]\nmax_attempts = 6\nbreaker_cooldown_ms = 1000\n")
            .with(&format!(
                "[[providers]]\nname = \"sandbox\"\nbase_url = \"{model_url}/v1\"\napi_key = \"env:CHAOS_KEY\"\n"
            ));
        let mut run = Self {
            python,
            cluster: Cluster::start(0, &settings).await?,
            model,
            model_url,
            http: reqwest::Client::builder().tls_certs_only([]).no_proxy().build().expect("an HTTP client"),
            places: Vec::new(),
            stopping: Vec::new(),
            started: 0,
            disturbances: Vec::new(),
            faults: Vec::new(),
            began: now(),
            peak_rss_kib: 0,
        };
        for _ in 0..plan.workers {
            let (name, worker) = run.worker();
            run.places.push(name);
            run.cluster.workers.push(worker);
        }
        // The first of them makes the database, which others look at.
        for worker in &run.cluster.workers {
            worker.until_ready().await;
        }
        Some(run)
    }

    /// A new worker. Its key is its name, so that the model knows who asks.
    fn worker(&mut self) -> (String, Program) {
        let name = format!("worker{}-{CANARY}", self.started);
        self.started += 1;
        let mut command = throughline();
        command.arg("--config").arg(self.cluster.config()).arg("worker").env("CHAOS_KEY", &name);
        let program = Program::start(&name, self.cluster.dir(), &mut command);
        (name, program)
    }

    fn python(&self, name: &str, arguments: &[&str]) -> Program {
        let mut command = Command::new(self.python);
        command.arg(client_script(&format!("{name}.py"))).args(arguments);
        Program::start(name, self.cluster.dir(), &mut command)
    }

    fn python_with_plan(&self, name: &str, plan: &Value) -> Program {
        let file = self.cluster.dir().join(format!("{name}.json"));
        std::fs::write(&file, plan.to_string()).expect("a file");
        self.python(name, &[file.to_str().expect("a path")])
    }

    /// Publishes everything under faults, waits until all has ended, and collects the ledgers.
    pub async fn finish(mut self, plan: &Plan) -> Ledgers {
        let url = self.cluster.nats.url();
        let database = self.cluster.database();
        let database = database.to_str().expect("a path").to_owned();
        let mut listener = self.python("chaos_watch", &[&url, NAMESPACE, &database]);
        eventually("the watcher listens", async || listener.stderr().contains("watching").then_some(()))
            .await;
        let mut publisher = self.python_with_plan(
            "chaos_publish",
            &json!({"url": url, "namespace": NAMESPACE, "prefix": format!("c{}", plan.seed), "seed": plan.seed,
                "sessions": plan.sessions, "turns": plan.turns, "per_second": plan.per_second,
                "give_up_s": GIVE_UP.as_secs()}),
        );
        for (wait, fault) in Schedule::new(plan.seed, plan.mix, plan.workers, plan.pace) {
            let until = Instant::now() + wait;
            while publisher.is_running() && Instant::now() < until {
                self.look_at_memory();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if !publisher.is_running() {
                break;
            }
            self.inflict(fault).await;
        }
        let calmed = self.http.post(format!("{}/calm", self.model_url)).body("{}");
        assert!(calmed.send().await.expect("the model answers").status().is_success());
        let calm_at = now();
        for stopping in &mut self.stopping {
            let status = stopping.ended(STOPPED).await;
            assert_eq!(status.code(), Some(0), "a stopped worker:\n{}", stopping.stderr());
        }
        let publisher: PublisherLedger = printed(&mut publisher, RECOVERY + FINISH).await;
        let acked: Vec<_> =
            publisher.ledger.iter().filter(|one| one.state == "acked").map(|one| &one.id).collect();
        let mut reader = self.python_with_plan(
            "chaos_read",
            &json!({"url": url, "namespace": NAMESPACE, "ids": acked, "limit_s": RECOVERY.as_secs()}),
        );
        let reader: ReaderLedger = printed(&mut reader, RECOVERY + READING).await;
        self.look_at_memory();
        listener.signal("TERM");
        let watched = printed(&mut listener, FINISH).await;
        let calls =
            self.http.get(format!("{}/ledger", self.model_url)).send().await.expect("the model answers");
        let calls = calls.bytes().await.expect("a body");
        self.keep_logs(plan.seed);
        Ledgers {
            published: publisher.ledger,
            repeated: publisher.repeated,
            calls: serde_json::from_slice(&calls).expect("a ledger"),
            events: reader.events,
            dead: reader.dead,
            rows: self.cluster.rows(),
            watched,
            leaks: self.leaks(),
            disturbances: std::mem::take(&mut self.disturbances),
            faults: std::mem::take(&mut self.faults),
            calm_at,
            peak_rss_kib: self.peak_rss_kib,
        }
    }

    async fn inflict(&mut self, fault: Fault) {
        let at = now();
        self.faults.push(format!("{:7.2} s {fault:?}", at - self.began));
        match fault {
            Fault::Kill { place } => {
                self.cluster.workers[place].kill();
                self.disturb(Some(place), at, Duration::ZERO);
                self.replace(place);
            }
            Fault::Pause { place, time } => {
                self.cluster.workers[place].signal("STOP");
                tokio::time::sleep(time).await;
                self.cluster.workers[place].signal("CONT");
                self.disturb(Some(place), at, WAKING);
            }
            Fault::Stop { place } => {
                // What it hands back at the end of its grace period is asked again.
                self.disturb(Some(place), at, STOPPED);
                self.cluster.workers[place].signal("TERM");
                let stopping = self.replace(place);
                self.stopping.push(stopping);
            }
            Fault::CrashNats { down } => {
                self.cluster.kill_nats();
                tokio::time::sleep(down).await;
                self.cluster.revive_nats();
                self.disturb(None, at, RIPPLE);
            }
            Fault::LockDatabase { time } => {
                let mut holder = Command::new(self.python)
                    .arg(client_script("hold.py"))
                    .arg(self.cluster.database())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("Python starts");
                reaper::watch(holder.id());
                tokio::time::sleep(time).await;
                drop(holder.stdin.take());
                let _ = holder.wait();
                reaper::forget(holder.id());
            }
        }
    }

    /// Something began at `from` and is over now, but for what follows within `after`.
    fn disturb(&mut self, place: Option<usize>, from: f64, after: Duration) {
        let worker = place.map(|place| self.places[place].clone());
        self.disturbances.push(Disturbance { worker, from, until: now() + after.as_secs_f64() });
    }

    /// Puts a new worker in the place and returns the one that was there.
    fn replace(&mut self, place: usize) -> Program {
        let (name, worker) = self.worker();
        self.places[place] = name;
        std::mem::replace(&mut self.cluster.workers[place], worker)
    }

    fn look_at_memory(&mut self) {
        for worker in &self.cluster.workers {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap_or_default();
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = rss.and_then(|rss| rss.trim().split(' ').next()?.parse().ok()).unwrap_or(0);
            self.peak_rss_kib = self.peak_rss_kib.max(kib);
        }
    }

    /// Copies what every process said to the folder that `chaos.sh --logs` names.
    fn keep_logs(&self, seed: u64) {
        let Some(folder) = std::env::var_os("THROUGHLINE_CHAOS_LOGS") else { return };
        let folder = Path::new(&folder).join(seed.to_string());
        std::fs::create_dir_all(&folder).expect("a folder for logs");
        for file in std::fs::read_dir(self.cluster.dir()).expect("files").flatten() {
            if file.path().extension().is_some_and(|extension| extension == "err") {
                std::fs::copy(file.path(), folder.join(file.file_name())).expect("a copy");
            }
        }
    }

    /// Files of the run in which the canary stands: logs, the database, the event store; not the names of files, nor
    /// what the model itself was told.
    fn leaks(&self) -> Vec<String> {
        let mut folders = vec![self.cluster.dir().to_owned(), self.cluster.nats.dir().to_owned()];
        let mut leaks = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()) {
                    leaks.push(path.display().to_string());
                }
            }
        }
        leaks
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.model.kill();
    }
}

/// What a program prints when it ends well.
async fn printed<T: DeserializeOwned>(program: &mut Program, limit: Duration) -> T {
    let status = program.ended(limit).await;
    assert!(status.success(), "{status}: {}", program.stderr());
    serde_json::from_str(&program.stdout()).expect("JSON")
}
