//! A worker: its adapters and its engine, started together and stopped in order.

use std::{sync::Arc, time::Duration};

use throughline_actors::{
    engine::{Engine, Observer, StartError},
    ports::trace::Tracer,
    stage::Drained,
};
use throughline_schemas::StageName;

use super::{AdapterError, Adapters, PromptFileError, engine_settings, load_prompt};
use crate::{
    config::{Config, Env},
    llm::RouteError,
};

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// An adapter is missing.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The model is not configured.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The prompt is not usable.
    #[error(transparent)]
    Prompt(#[from] PromptFileError),
    /// A stage did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A running worker.
pub struct Worker {
    /// What it uses.
    pub adapters: Adapters,
    engine: Engine,
}

impl Worker {
    /// Starts `stages`. Streams and consumers must exist.
    pub async fn start(
        config: &Config,
        env: &Env,
        stages: &[StageName],
        tracer: Arc<dyn Tracer>,
    ) -> Result<Self, WorkerError> {
        // What can be wrong in the configuration is found out before anything is opened.
        let settings = engine_settings(config, stages)?;
        let template = load_prompt(&config.prompt)?;
        let adapters = Adapters::open(config, env, "worker", stages).await?;
        match Engine::start(adapters.ports(tracer), settings, template).await {
            Ok(engine) => Ok(Self { adapters, engine }),
            Err(error) => {
                adapters.close().await;
                Err(error.into())
            }
        }
    }

    /// The engine's stages, for readiness.
    pub fn observer(&self) -> Observer {
        self.engine.observer()
    }

    /// Completes when the engine has given up.
    pub async fn gave_up(&mut self) {
        self.engine.gave_up().await;
    }

    /// Drains within `grace`, then closes everything. Says what became of the work in hand.
    pub async fn stop(self, grace: Duration) -> Vec<(StageName, Drained)> {
        let report = self.engine.drain(grace).await;
        for (stage, drained) in &report {
            tracing::info!(%stage, finished = drained.finished, handed_back = drained.handed_back, "stage drained");
        }
        self.adapters.close().await;
        report
    }
}
