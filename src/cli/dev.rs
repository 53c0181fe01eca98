//! `throughline dev`: everything in one process, with a private nats-server and local stand-ins.

mod demo;
mod lock;
mod models;
mod own;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use throughline_schemas::StageName;
use tokio::time::Instant;

use super::{DevArgs, Exit, Failure, output, signal::Signals, worker};
use crate::{
    app::{Worker, stream_limits},
    bus::nats::topology,
    config::{Config, Env, Layers, Override, sqlite_url},
    nats_server::{NatsServer, NatsServerError, SyncInterval},
    sandbox::{Sandbox, SandboxConfig, SandboxOptions},
    telemetry::Telemetry,
};
use lock::DataDir;

/// Most space that a private event store may take, in MiB; a laptop has other uses for its disk.
const DEV_MAX_BYTES_MIB: i64 = 1024;

/// Everything that `dev` started besides the worker.
struct Surroundings {
    /// `None`: the command line names a server.
    nats: Option<NatsServer>,
    sandbox: Option<Sandbox>,
    /// The model is a stand-in.
    stands_in_for_models: bool,
    /// The database is in the data folder.
    owns_database: bool,
    data_dir: DataDir,
}

impl Surroundings {
    async fn stop(self) {
        if let Some(sandbox) = self.sandbox {
            sandbox.shutdown().await;
        }
        if let Some(nats) = self.nats {
            nats.stop().await;
        }
    }
}

pub(super) async fn run(
    args: &DevArgs,
    layers: &Layers,
    config: Config,
    env: &Env,
    telemetry: &Telemetry,
) -> Result<(), Failure> {
    let started = Instant::now();
    // Before anything is made or asked.
    let own_file = DataDir::config_file_in(&args.data_dir);
    if own::names_a_server(&config, &own_file)? && args.nats_port.is_some() {
        return Err(Failure::usage("--nats-port is for a server of one's own, and --nats-url names another"));
    }
    let mut signals = Signals::install()?;
    let data_dir = DataDir::open(&args.data_dir)?;
    let (config, mut around) = tokio::select! {
        prepared = prepare(args, layers, config, data_dir) => prepared?,
        name = signals.next() => return Err(Failure::failed(format!("stopped by {name} while starting"))),
    };
    let result = Box::pin(serve(args, &config, env, telemetry, signals, &mut around, started)).await;
    around.stop().await;
    result
}

/// Starts what is not configured otherwise, and works out the configuration that uses it.
async fn prepare(
    args: &DevArgs,
    layers: &Layers,
    config: Config,
    data_dir: DataDir,
) -> Result<(Config, Surroundings), Failure> {
    let mut overrides = Vec::new();
    let mut set =
        |key: &str, value: toml::Value| overrides.push(Override::new("dev", key, value.to_string()));
    let nats = if config.is_set("nats.url") {
        None
    } else {
        if let Some(port) = args.nats_port {
            check_free(port)?;
        }
        let nats = data_dir.path().join("nats");
        let server = NatsServer::start(&nats, SyncInterval::Default, args.nats_port).await?;
        set("nats.url", server.url().into());
        Some(server)
    };
    if !config.is_set("nats.max_bytes_mib") {
        set("nats.max_bytes_mib", DEV_MAX_BYTES_MIB.into());
    }
    let owns_database = !own::names_a_database(&config);
    if owns_database {
        set("database.url", sqlite_url(&data_dir.path().join("throughline.db")).into());
    }
    if !config.is_set("http.listen") {
        set("http.listen", "127.0.0.1:0".into());
    }
    let (no_sources, no_providers) = (config.sources.is_empty(), config.providers.is_empty());
    let sandbox = if no_sources || no_providers {
        let sandbox = Sandbox::start(SandboxOptions {
            data_dir: config.sandbox.data_dir.clone(),
            model_latency: config.sandbox.model_latency,
            source_latency: config.sandbox.source_latency,
            record_requests: true,
            ..SandboxOptions::default()
        })
        .await?;
        let mut stand_ins: toml::Table = SandboxConfig::toml(&sandbox.base_url())
            .parse()
            .map_err(|error| Failure::failed(format!("the sandbox's configuration: {error}")))?;
        let wanted = [("sources", no_sources), ("providers", no_providers), ("models", no_providers)];
        for (key, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            if let Some(value) = stand_ins.remove(key) {
                set(key, value);
            }
        }
        if no_providers {
            set("generation.model", SandboxConfig::MODEL.into());
        }
        Some(sandbox)
    } else {
        None
    };
    let mut all = layers.clone();
    if owns_database {
        // A password of another database is none of this one's.
        all.left_out.push(("database", "password"));
    }
    all.overrides.extend(overrides);
    let config = all.load()?;
    write_config(&config, &data_dir.config_file())?;
    let around = Surroundings { nats, sandbox, stands_in_for_models: no_providers, owns_database, data_dir };
    Ok((config, around))
}

/// nats-server itself would say it in its log only.
fn check_free(port: u16) -> Result<(), Failure> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure {
            exit: Exit::Unavailable,
            message: format!("port {port} of 127.0.0.1 is not free ({error}); choose another --nats-port"),
        }),
    }
}

/// Other terminals use what this process uses by naming this file.
fn write_config(config: &Config, path: &Path) -> Result<(), Failure> {
    std::fs::write(path, config.show())
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

async fn serve(
    args: &DevArgs,
    config: &Config,
    env: &Env,
    telemetry: &Telemetry,
    mut signals: Signals,
    around: &mut Surroundings,
    started: Instant,
) -> Result<(), Failure> {
    let asked = models::words(config, around.stands_in_for_models)?;
    for line in &asked {
        output::note(&format!("model      {line}"));
    }
    let bus = crate::app::connect_bus(config, env, "dev").await?;
    if around.nats.is_none() {
        own::check_namespace(&bus, config, env).await?;
    }
    topology::setup(&bus, &stream_limits(config)).await.map_err(|error| Failure::unavailable(&error))?;
    let (mut running, port) = Worker::start(config, env, &StageName::ALL, telemetry.tracer()).await?;
    let mut http = worker::serve(port, &running, telemetry);
    let address = http.address();

    let store = running.adapters.store.clone();
    let session = async {
        if around.owns_database {
            demo::seed(&store).await?;
        }
        if let Some(text) = &args.once {
            return demo::once(&bus, text).await;
        }
        announce(config, address, around.sandbox.as_ref(), &around.data_dir);
        demo::first_message(&bus).await?;
        output::line(&format!("ready after {}", crate::nats_server::since(started)))?;
        std::future::pending().await
    };
    let nats_ended = async {
        match &mut around.nats {
            Some(server) => server.ended().await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = session => result,
        () = nats_ended => Err(Failure::failed("nats-server ended; its log is nats/nats-server.log in the data folder")),
        result = worker::until_stopped(&mut signals, &mut running, &mut http) => result,
    };
    let stopped = worker::stop(signals, running, config.worker.drain_grace).await;
    http.shutdown().await;
    bus.close(std::time::Duration::from_secs(2)).await;
    result.and(stopped)
}

/// Says where everything is, and what to type in another terminal.
fn announce(config: &Config, http: SocketAddr, sandbox: Option<&Sandbox>, data_dir: &DataDir) {
    let sandbox =
        sandbox.map_or_else(|| "not used, sources and model are configured".to_owned(), Sandbox::base_url);
    let file = data_dir.config_file();
    output::note(&format!(
        "nats       {}\n\
         database   {}\n\
         http       http://{} (/healthz /readyz /metrics)\n\
         stand-ins  {sandbox}\n\
         config     {}\n\n\
         In another terminal:\n  \
           export THROUGHLINE_CONFIG={}\n  \
           throughline publish --user demo --session s1 --wait \"Where is my order?\"\n  \
           throughline events --follow\n  \
           throughline worker --listen 127.0.0.1:0\n",
        config.nats.url,
        config.database.url,
        http,
        file.display(),
        file.display(),
    ));
}

impl From<NatsServerError> for Failure {
    fn from(error: NatsServerError) -> Self {
        Self::unavailable(&error)
    }
}
