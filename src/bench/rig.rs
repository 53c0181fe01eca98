//! The processes of a benchmark.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    time::timeout,
};

use super::{
    Plan,
    process::{Parts, Usage, usage},
};
use crate::{
    app::{AdapterError, connect_bus, stream_limits},
    bus::nats::{NatsBus, topology},
    config::{ConfigErrors, Env, Layers},
    leash::Leashed,
    nats_server::{NatsServer, NatsServerError},
};
use throughline_actors::ports::bus::BusError;

/// How long a child process may take until it is ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest configuration that the upstreams may print, in bytes.
const MAX_CONFIG_BYTES: u64 = 65_536;

/// How long the upstreams take to answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Upstreams {
    /// The model.
    pub model_latency: Duration,
    /// Each data source.
    pub source_latency: Duration,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No nats-server.
    #[error(transparent)]
    NatsServer(#[from] NatsServerError),
    /// A process could not be started.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The configuration that the bench writes is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// No connection.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// NATS did not do what was asked.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// An input was not stored.
    #[error("an input was not stored")]
    Publish(#[source] Box<async_nats::jetstream::context::PublishError>),
    /// A child did not become ready.
    #[error("{0} did not become ready within {START_TIMEOUT:?}")]
    NotReady(&'static str),
    /// A workflow did not end well.
    #[error("workflow {workflow} ended as {end}; run it by hand to see why")]
    Failed {
        /// Token of the workflow.
        workflow: String,
        /// The end.
        end: &'static str,
    },
    /// The events do not read back.
    #[error("the events of the run cannot be read: {0}")]
    Unreadable(String),
    /// It took too long.
    #[error("not finished within {0:?}")]
    TooSlow(Duration),
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> BenchError {
    move |source| BenchError::Io { doing, source }
}

/// Everything that runs. Dropping it stops it all.
pub(super) struct Rig {
    pub bus: NatsBus,
    /// Where inputs go, as any client would send them.
    pub input: async_nats::jetstream::Context,
    nats: NatsServer,
    upstreams: Leashed,
    workers: Vec<Leashed>,
    _dir: tempfile::TempDir,
}

impl Rig {
    pub(super) async fn start(plan: &Plan) -> Result<Self, BenchError> {
        let dir = tempfile::Builder::new()
            .prefix("throughline-bench-")
            .tempdir()
            .map_err(io_error("create a temporary folder"))?;
        let program = std::env::current_exe().map_err(io_error("find this program"))?;
        let nats = NatsServer::start(&dir.path().join("nats"), plan.sync, None).await?;
        let (upstreams, stand_ins) = start_upstreams(&program, plan.upstreams).await?;
        let file = dir.path().join("throughline.toml");
        let new = || format!("sqlite://{}/throughline.db", dir.path().display());
        let database = plan.database.clone().unwrap_or_else(new);
        std::fs::write(&file, configuration(&nats.url(), &database, &stand_ins))
            .map_err(io_error("write the configuration"))?;
        let config = Layers { file: Some(file.clone()), ..Layers::default() }.load()?;
        let bus = connect_bus(&config, &Env::new(), "bench").await?;
        topology::setup(&bus, &stream_limits(&config)).await?;
        let mut workers = Vec::with_capacity(plan.workers);
        for number in 0..plan.workers {
            workers.push(start_worker(&program, &file, number, dir.path())?);
        }
        // Nobody waits for the workers: the warm-up begins when they do.
        let input = async_nats::jetstream::new(bus.client().clone());
        Ok(Self { bus, input, nats, upstreams, workers, _dir: dir })
    }

    /// What each part has used so far.
    pub(super) fn usage(&self) -> Parts {
        let workers =
            self.workers.iter().map(|worker| usage(worker.pid())).fold(Usage::default(), |sum, one| Usage {
                cpu: sum.cpu + one.cpu,
                rss: sum.rss + one.rss,
                peak_rss: sum.peak_rss + one.peak_rss,
            });
        Parts {
            nats: usage(Some(self.nats.pid())),
            workers,
            upstreams: usage(self.upstreams.pid()),
            driver: usage(Some(std::process::id())),
        }
    }

    pub(super) async fn stop(self) {
        for worker in self.workers {
            worker.stop().await;
        }
        self.upstreams.stop().await;
        self.bus.close(Duration::from_secs(2)).await;
        self.nats.stop().await;
    }
}

fn configuration(nats: &str, database: &str, stand_ins: &str) -> String {
    let database = toml::Value::from(database);
    format!(
        "[nats]\nurl = \"{nats}\"\nmax_bytes_mib = 8192\n\
         [database]\nurl = {database}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n\
         [log]\nfilter = \"warn\"\n\
         {stand_ins}"
    )
}

async fn start_upstreams(program: &Path, upstreams: Upstreams) -> Result<(Leashed, String), BenchError> {
    let model = upstreams.model_latency.as_millis().to_string();
    let source = upstreams.source_latency.as_millis().to_string();
    let arguments = ["sandbox", "--model-latency-ms", &model, "--source-latency-ms", &source].map(OsStr::new);
    let mut child = Leashed::spawn(program.as_os_str(), &arguments, &[], Stdio::piped(), Stdio::null())
        .map_err(io_error("start the upstreams"))?;
    let stdout = child.stdout().ok_or(BenchError::NotReady("the upstreams"))?;
    // The last line of the configuration names the model to generate with.
    let read = async {
        let mut lines = BufReader::new(stdout.take(MAX_CONFIG_BYTES)).lines();
        let mut text = String::new();
        while let Some(line) = lines.next_line().await.map_err(io_error("read from the upstreams"))? {
            text.push_str(&line);
            text.push('\n');
            if line.starts_with("model = ") {
                return Ok(text);
            }
        }
        Err(BenchError::NotReady("the upstreams"))
    };
    let text = timeout(START_TIMEOUT, read).await.map_err(|_| BenchError::NotReady("the upstreams"))??;
    Ok((child, text))
}

fn start_worker(program: &Path, file: &Path, number: usize, dir: &Path) -> Result<Leashed, BenchError> {
    let log: PathBuf = dir.join(format!("worker-{number}.log"));
    let log = std::fs::File::create(log).map_err(io_error("create a worker's log"))?;
    let arguments = [OsStr::new("worker"), OsStr::new("--config"), file.as_os_str()];
    Leashed::spawn(program.as_os_str(), &arguments, &[], Stdio::null(), log.into())
        .map_err(io_error("start a worker"))
}
