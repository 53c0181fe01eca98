//! A log under another configuration, on a thread with a clock of its own.

use std::{collections::BTreeSet, sync::Arc, thread};

use throughline_actors::{
    dependency::DependencyPolicy,
    model::client::ClientSettings,
    replay::{Recorded, Simulated, Simulation, results},
    supervision::{
        engine::StartError,
        settings::{EngineSettings, StageSettings},
    },
};
use throughline_schemas::StageName;
use tokio::sync::mpsc;

use super::Setup;

/// Workflows that one simulation may have: all of them are in memory, at a few kilobytes each.
pub const MAX_WORKFLOWS: usize = 100_000;

/// Why a simulation ended without an end.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The stages cannot be made.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no clock.
    #[error("cannot start the simulation's runtime")]
    Runtime(#[source] std::io::Error),
}

/// Begins to simulate. Results come as they are made; the thread ends when the receiver is dropped.
pub fn simulate(
    recorded: &Setup,
    setup: &Setup,
    workflows: Vec<Recorded>,
) -> (mpsc::Receiver<Simulated>, thread::JoinHandle<Result<(), SimulateError>>) {
    let redecided = changed_providers(&recorded.settings, &setup.settings);
    let simulation = Simulation {
        settings: setup.settings.clone(),
        recorded_settings: recorded.settings.clone(),
        template: Arc::clone(&setup.template),
        tokenizer: Arc::clone(&setup.tokenizer),
        redecided,
    };
    let (sender, receiver) = results();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(SimulateError::Runtime)?;
        Ok(runtime.block_on(simulation.run(workflows, sender))?)
    });
    (receiver, thread)
}

/// Providers whose breaker or limits are not what they were: what these decide is decided again.
pub fn changed_providers(recorded: &EngineSettings, now: &EngineSettings) -> BTreeSet<String> {
    let policy = |settings: &EngineSettings| -> DependencyPolicy {
        let stage = settings.stages.get(&StageName::Generation).copied();
        stage.unwrap_or_else(StageSettings::default).for_calls()
    };
    let breaker_changed = policy(recorded).breaker != policy(now).breaker;
    let (before, after) = (&recorded.generation.client, &now.generation.client);
    let patience = |client: &ClientSettings| (client.rate_patience, client.rate_total);
    let patience_changed = patience(before) != patience(after);
    let providers = after.models.iter().map(|model| model.provider.clone());
    providers
        .filter(|provider| {
            breaker_changed || patience_changed || limits(before, provider) != limits(after, provider)
        })
        .collect()
}

/// All limits that calls to a provider are under.
fn limits<'a>(client: &'a ClientSettings, provider: &'a str) -> impl PartialEq + use<'a> {
    let models: Vec<_> = client
        .models
        .iter()
        .filter(|model| model.provider == provider)
        .map(|model| (model.name.as_str(), model.rates))
        .collect();
    (client.provider_rates.get(provider).copied().unwrap_or_default(), models)
}
