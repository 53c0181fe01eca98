//! A worker: its adapters and its engine, started together and stopped in order.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use throughline_actors::{
    delivery::stage::Drained,
    model::prompt::PromptTemplate,
    ports::{model::Models, source::Sources, store::Store, trace::Tracer},
    supervision::{
        engine::{Engine, Observer, StartError},
        settings::EngineSettings,
    },
};
use throughline_schemas::StageName;
use tokio::sync::watch;

use super::{
    AdapterError, Adapters, FORGEABLE, PromptFileError, Tried, clock, engine_settings, load_prompt,
    load_tried_prompt, mistake_in_words,
};
use crate::{
    config::{Config, Env},
    http::{HttpError, HttpPort, HttpState},
    identity::{CheckInError, Keeper, check_in, place},
    llm::RouteError,
    machine::{Machine, Need, raise_open_files},
    telemetry::metrics::Metrics,
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
    /// Its endpoints have no port.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Log and database do not belong together.
    #[error(transparent)]
    Identity(#[from] CheckInError),
    /// A stage did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Puts something in the place of an adapter that the configuration made; it may use that one.
pub type Replace<T> = Box<dyn FnOnce(Arc<T>) -> Arc<T> + Send>;

/// What a program puts in the place of adapters that the configuration asks for. By default nothing.
#[derive(Default)]
pub struct Replacements {
    /// Who answers for the data sources.
    pub sources: Option<Replace<dyn Sources>>,
    /// Who answers for the models.
    pub models: Option<Replace<dyn Models>>,
}

/// A running worker.
pub struct Worker {
    /// What it uses.
    pub adapters: Adapters,
    engine: Engine,
    keeper: Keeper,
}

impl Worker {
    /// Starts `stages`. Streams and consumers must exist. The port of its endpoints comes along, for the HTTP server:
    /// a process that cannot have it takes no delivery.
    pub async fn start(
        config: &Config,
        env: &Env,
        stages: &[StageName],
        tracer: Arc<dyn Tracer>,
    ) -> Result<(Self, HttpPort), WorkerError> {
        Self::start_with(config, env, stages, tracer, Replacements::default()).await
    }

    /// The same, with adapters of the program's own.
    pub async fn start_with(
        config: &Config,
        env: &Env,
        stages: &[StageName],
        tracer: Arc<dyn Tracer>,
        replacements: Replacements,
    ) -> Result<(Self, HttpPort), WorkerError> {
        // What can be wrong in the configuration is found out before anything is opened.
        let settings = engine_settings(config, stages)?;
        raise_open_files();
        let (need, machine) = (Need::of(config), Machine::here());
        let settings = EngineSettings { message_memory: machine.message_memory(config), ..settings };
        if machine.open_files.is_some_and(|allowed| allowed < need.open_files) {
            tracing::warn!(
                needed = need.open_files,
                allowed = machine.open_files,
                "not as many files may be open as all slots together may need; `throughline doctor` says what to change"
            );
        }
        let template = prompt(config, stages)?;
        let port = http_port(config).await?;
        if let Some(unused) = config.unused_database() {
            tracing::warn!("{unused}");
        }
        let mut adapters = Adapters::open(config, env, "worker", stages).await?;
        let Replacements { sources, models } = replacements;
        if let Some(replace) = sources {
            adapters.sources = replace(adapters.sources);
        }
        if let Some(replace) = models {
            adapters.models = replace(adapters.models);
        }
        if let Some(small) = adapters.bus.small_payload() {
            tracing::warn!(nats = %config.nats.url, "the server's max_payload is small: {small}");
        }
        let Adapters { bus, store, .. } = &adapters;
        let asks = settings.stages.get(&StageName::Generation).map_or(0, |stage| stage.concurrency);
        let asks = u32::try_from(asks).unwrap_or(u32::MAX);
        let checked_in = match check_in(bus, store, &place(config.database.url.expose()), asks).await {
            Ok(checked_in) => checked_in,
            Err(error) => {
                adapters.close().await;
                return Err(error.into());
            }
        };
        let calls = settings.users.calls.clone();
        let keeper = Keeper::start(Arc::clone(bus), Arc::clone(store), checked_in, calls);
        clock::compare(bus.as_ref()).await;
        match Engine::start(adapters.ports(tracer), settings, template).await {
            Ok(engine) => Ok((Self { adapters, engine, keeper }, port)),
            Err(error) => {
                keeper.leave().await;
                adapters.close().await;
                Err(error.into())
            }
        }
    }

    /// Why this worker must not go on, as soon as that is known.
    pub fn refusal(&self) -> watch::Receiver<Option<String>> {
        self.keeper.refusal()
    }

    /// The engine's stages, for readiness.
    pub fn observer(&self) -> Observer {
        self.engine.observer()
    }

    /// What its endpoints look at.
    pub fn http_state(&self, metrics: Metrics) -> HttpState {
        HttpState {
            observer: Some(self.observer()),
            store: self.adapters.store.clone(),
            bus: self.adapters.bus.clone(),
            refusal: Some(self.refusal()),
            metrics,
        }
    }

    /// Completes when something has ended that the worker cannot do without, and says what.
    pub async fn broken(&mut self) -> String {
        let Self { adapters, engine, keeper } = self;
        tokio::select! {
            why = engine.gave_up() => why,
            why = keeper.ended() => why,
            () = adapters.bus.ended() => "the connection to NATS was given up".to_owned(),
            () = adapters.store.ended() => "a task of the database's ended".to_owned(),
        }
    }

    /// Drains within `grace`, then closes everything. Says what became of the work in hand.
    pub async fn stop(self, grace: Duration) -> Report {
        let report = Report(self.engine.drain(grace).await);
        self.keeper.leave().await;
        self.adapters.close().await;
        report
    }
}

/// The configured prompt, tried if this process makes prompts of it.
fn prompt(config: &Config, stages: &[StageName]) -> Result<PromptTemplate, PromptFileError> {
    if !stages.contains(&StageName::Generation) {
        return load_prompt(&config.prompt);
    }
    let Tried { template, doubts } = load_tried_prompt(config)?;
    for doubt in &doubts {
        tracing::warn!(
            mistake = mistake_in_words(doubt),
            "the prompt template makes no prompt of a made-up message; real ones may be otherwise"
        );
    }
    if template.is_forgeable() {
        tracing::warn!("the prompt template: {FORGEABLE}");
    }
    Ok(template)
}

/// The configured port. Where none is configured, a second worker on this machine takes a free one.
async fn http_port(config: &Config) -> Result<HttpPort, HttpError> {
    match HttpPort::bind(config.http.listen).await {
        Err(HttpError::InUse { listen }) if !config.is_set("http.listen") => {
            let port = HttpPort::bind(SocketAddr::new(listen.ip(), 0)).await?;
            tracing::warn!(
                taken = %listen,
                address = %port.address(),
                "another process has the default address, so readiness and metrics are at a free one; set http.listen to \
                 choose"
            );
            Ok(port)
        }
        bound => bound,
    }
}

/// What became of the work that a worker had in hand when it was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report(pub Vec<(StageName, Drained)>);

impl Report {
    /// All stages together.
    pub fn total(&self) -> Drained {
        self.0.iter().fold(Drained::default(), |mut sum, (_, drained)| {
            sum += *drained;
            sum
        })
    }
}

/// Stages that had something in hand, as in `generation 3 finished, 1 handed back; input 2 handed back`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        for (stage, Drained { finished, handed_back }) in &self.0 {
            let counts = match (finished, handed_back) {
                (0, 0) => continue,
                (finished, 0) => format!("{finished} finished"),
                (0, handed_back) => format!("{handed_back} handed back"),
                (finished, handed_back) => format!("{finished} finished, {handed_back} handed back"),
            };
            write!(f, "{}{stage} {counts}", if is_first { "" } else { "; " })?;
            is_first = false;
        }
        if is_first { f.write_str("nothing was in hand") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_the_stages_that_had_something_to_do() {
        let drained = |finished, handed_back| Drained { finished, handed_back };
        let report = Report(vec![
            (StageName::Input, drained(0, 2)),
            (StageName::Context, drained(0, 0)),
            (StageName::Generation, drained(3, 1)),
        ]);
        assert_eq!(report.to_string(), "input 2 handed back; generation 3 finished, 1 handed back");
        assert_eq!(report.total(), drained(3, 3));
        assert_eq!(Report(Vec::new()).to_string(), "nothing was in hand");
    }
}
