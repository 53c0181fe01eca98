//! Settings of the engine: plain values, made by the configuration loader or by a test.

use std::{collections::BTreeMap, time::Duration};

use throughline_schemas::{IngressLimits, StageName, event::input::WhenBusy};

use crate::{
    dependency::{DependencyPolicy, Patience},
    model::client::ClientSettings,
    policy::{
        breaker::BreakerPolicy,
        limits::{DeliveryLimits, HOLD_LIMIT, STORE_PATIENCE, STORE_PROBE},
        retry::RetryPolicy,
    },
    ports::store::SessionOwner,
    retention::RetentionSettings,
    stages::external::source_selection::SourceSpec,
    supervision::supervisor::RestartPolicy,
    workflow::{sweeper::SweepSettings, users::UserSettings},
};

/// The same keys for every stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageSettings {
    /// Deliveries in hand at once, in this process.
    pub concurrency: usize,
    /// How often to try a call, and how long to wait in between.
    pub retry: RetryPolicy,
    /// When to stop calling a dependency.
    pub breaker: BreakerPolicy,
}

impl StageSettings {
    /// Policy for the model: waits up to [`HOLD_LIMIT`] with the delivery in hand.
    pub fn for_calls(&self) -> DependencyPolicy {
        let patience = Patience { longest_wait: HOLD_LIMIT, total: Duration::MAX / 4 };
        DependencyPolicy { retry: self.retry, breaker: self.breaker, patience }
    }

    /// Policy for the database: no workflow fails because the database is away for a while, and work goes on within
    /// [`STORE_PROBE`] of its return, whatever the waits for models and sources are.
    pub fn for_store(&self) -> DependencyPolicy {
        let retry = RetryPolicy {
            max_attempts: u32::MAX,
            base_delay: self.retry.base_delay.min(STORE_PROBE),
            max_delay: self.retry.max_delay.min(STORE_PROBE),
        };
        let breaker = BreakerPolicy { cooldown: self.breaker.cooldown.min(STORE_PROBE), ..self.breaker };
        let patience = Patience { longest_wait: STORE_PATIENCE, total: STORE_PATIENCE };
        DependencyPolicy { retry, breaker, patience }
    }
}

impl Default for StageSettings {
    fn default() -> Self {
        Self { concurrency: 64, retry: RetryPolicy::default(), breaker: BreakerPolicy::default() }
    }
}

/// How the generation stage asks.
#[derive(Debug, Clone)]
pub struct GenerationSettings {
    /// Which models, in which order, with which limits.
    pub client: ClientSettings,
    /// Limit on the earlier turns in the prompt, in characters; older turns are left out first.
    pub max_history_chars: usize,
    /// Id of the effective configuration, recorded with every prompt.
    pub config_id: String,
}

/// How turns of a session follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionSettings {
    /// What to do in a busy session with a message that does not say so itself.
    pub when_busy: WhenBusy,
    /// Who may speak in a session.
    pub owner: SessionOwner,
    /// When to look for turns on which no worker works.
    pub sweep: SweepSettings,
}

/// All settings of the engine.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Stages to run in this process, with their settings.
    pub stages: BTreeMap<StageName, StageSettings>,
    /// Limits on what publishers send.
    pub ingress: IngressLimits,
    /// How turns of a session follow each other.
    pub sessions: SessionSettings,
    /// What one user may take.
    pub users: UserSettings,
    /// How many earlier turns the context stage reads.
    pub recent_turns: usize,
    /// External data sources, in the order of the prompt.
    pub sources: Vec<SourceSpec>,
    /// How to ask the model.
    pub generation: GenerationSettings,
    /// The server's redelivery timer.
    pub ack_wait: Duration,
    /// How often one message may come.
    pub delivery: DeliveryLimits,
    /// How long things are kept.
    pub retention: RetentionSettings,
    /// Memory for messages in hand, in bytes; see [`crate::memory_budget`].
    pub message_memory: u64,
    /// When the supervisor gives up.
    pub restart: RestartPolicy,
}
