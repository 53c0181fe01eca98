//! A worker in a program of one's own, with data sources or a model behind the ports that answer from the program's own code.
//! `throughline worker` does the same without them.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use throughline::worker::{Document, FetchCall, FetchError, Sources, Worker, async_trait};
//!
//! /// Answers for the source `crm`, and has the others asked as configured.
//! struct Crm(Arc<dyn Sources>);
//!
//! #[async_trait]
//! impl Sources for Crm {
//!     async fn fetch(&self, call: &FetchCall) -> Result<Document, FetchError> {
//!         if call.source != "crm" {
//!             return self.0.fetch(call).await;
//!         }
//!         Ok(Document::from(serde_json::json!({"tier": "gold"})))
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let worker = Worker::from_file("throughline.toml")?.sources(|configured| Arc::new(Crm(configured)));
//! worker.run_until(async { drop(tokio::signal::ctrl_c().await) }).await?;
//! # Ok(())
//! # }
//! ```

use std::{path::PathBuf, sync::Arc};

use throughline_schemas::StageName;

pub use async_trait::async_trait;
pub use throughline_actors::ports::{
    model::{Delta, DeltaSink, ModelAnswer, ModelFailure, ModelRequest, Models},
    source::{FetchCall, FetchError, Sources},
};
pub use throughline_schemas::Document;

use crate::{
    app::{self, Replacements, WorkerError},
    config::{Config, ConfigErrors, Env, Layers, process_env},
    telemetry::{Telemetry, TelemetryError},
};

/// Why a worker did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logs and metrics cannot be had.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// It did not start.
    #[error(transparent)]
    Start(#[from] WorkerError),
    /// Something ended that it cannot do without. Work in hand is with other workers, or comes again.
    #[error("{0}; the log says why")]
    Broken(String),
}

/// A worker that has not started.
pub struct Worker {
    config: Config,
    env: Env,
    stages: Vec<StageName>,
    replacements: Replacements,
}

impl Worker {
    /// As the file and the environment of this process say. Secrets are read when it starts.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, ConfigErrors> {
        let env = process_env();
        let layers = Layers { file: Some(path.into()), env: env.clone(), ..Layers::default() };
        Ok(Self::new(layers.load()?, env))
    }

    /// As a configuration that is there says.
    pub fn new(config: Config, env: Env) -> Self {
        Self { config, env, stages: StageName::ALL.to_vec(), replacements: Replacements::default() }
    }

    /// Runs these stages only; by default all.
    #[must_use]
    pub fn stages(self, stages: impl IntoIterator<Item = StageName>) -> Self {
        Self { stages: stages.into_iter().collect(), ..self }
    }

    /// Who answers for the data sources, made from the configured ones. Each source needs its entry in the configuration: its
    /// name, its URL with the values to fill in, its limits. Retries and the breaker stay the stage's own, and a call that is
    /// made again must be harmless.
    #[must_use]
    pub fn sources(
        mut self,
        replace: impl FnOnce(Arc<dyn Sources>) -> Arc<dyn Sources> + Send + 'static,
    ) -> Self {
        self.replacements.sources = Some(Box::new(replace));
        self
    }

    /// Who answers for the models, made from the configured providers. Each model needs its entry in the configuration.
    #[must_use]
    pub fn models(
        mut self,
        replace: impl FnOnce(Arc<dyn Models>) -> Arc<dyn Models> + Send + 'static,
    ) -> Self {
        self.replacements.models = Some(Box::new(replace));
        self
    }

    /// Works until `stop` completes, then finishes or hands back what is in hand, for at most `worker.drain_grace_ms`.
    /// Takes the logs and metrics of the whole process, as configured. Streams and consumers must exist
    /// (`throughline setup`). Dropped, it stops as a crash would: what is in hand comes again.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let Self { config, env, stages, replacements } = self;
        let telemetry = Telemetry::init(&config.log, &env)?;
        let ran = run(&config, &env, &stages, replacements, &telemetry, stop).await;
        telemetry.shutdown().await;
        ran
    }
}

async fn run(
    config: &Config,
    env: &Env,
    stages: &[StageName],
    replacements: Replacements,
    telemetry: &Telemetry,
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let (mut worker, port) =
        app::Worker::start_with(config, env, stages, telemetry.tracer(), replacements).await?;
    let mut http = port.serve(worker.http_state(telemetry.metrics()));
    tracing::info!(address = %http.address(), "worker ready");
    let broken = tokio::select! {
        () = stop => None,
        broken = worker.broken() => Some(broken),
        () = http.ended() => Some("the HTTP server ended".to_owned()),
    };
    let report = worker.stop(config.worker.drain_grace).await;
    http.shutdown().await;
    tracing::info!(%report, "stopped; what was handed back is with other workers");
    broken.map_or(Ok(()), |broken| Err(RunError::Broken(broken)))
}
