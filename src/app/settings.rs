//! The configuration, as the engine's settings.

use std::collections::BTreeMap;

use throughline_actors::{
    dependency::{DependencyPolicy, Patience},
    model::client::ClientSettings,
    policy::limits::{DeliveryLimits, HOLD_LIMIT},
    stages::external::source_selection::SourceSpec,
    supervision::{
        settings::{EngineSettings, GenerationSettings, SessionSettings},
        supervisor::RestartPolicy,
    },
    workflow::{
        sweeper::SweepSettings,
        users::{Calls, UserSettings},
    },
};
use throughline_schemas::{IngressLimits, StageName};

use crate::{
    config::{Config, Source, Stage},
    llm::{RouteError, client_settings},
};

/// What the engine needs to know to run `stages`.
pub fn engine_settings(config: &Config, stages: &[StageName]) -> Result<EngineSettings, RouteError> {
    let stages =
        stages.iter().map(|name| (*name, stage(config, *name).settings())).collect::<BTreeMap<_, _>>();
    // A process that generates nothing needs no model.
    let client = if stages.contains_key(&StageName::Generation) {
        client_settings(config)?
    } else {
        ClientSettings::chain(Vec::new())
    };
    Ok(EngineSettings {
        stages,
        ingress: IngressLimits {
            max_input_bytes: config.limits.max_input_bytes,
            max_metadata_bytes: config.limits.max_metadata_bytes,
        },
        sessions: SessionSettings {
            when_busy: config.sessions.when_busy,
            owner: config.sessions.owner,
            sweep: SweepSettings {
                interval: config.sessions.sweep_interval,
                turn_limit: config.sessions.turn_limit,
            },
        },
        users: UserSettings {
            running: config.users.running,
            open: config.users.open,
            // Until the signs of life of all workers tell.
            calls: Calls::new(u32::try_from(config.stages.generation.concurrency).unwrap_or(u32::MAX)),
        },
        recent_turns: config.context.recent_turns,
        sources: config.sources.iter().map(source).collect(),
        generation: GenerationSettings {
            client,
            max_history_chars: config.context.max_history_chars,
            config_id: config.id(),
        },
        ack_wait: config.worker.ack_wait,
        delivery: DeliveryLimits { max_deliveries: config.worker.max_deliver, ..DeliveryLimits::default() },
        retention: config.retention.settings(),
        // A worker knows what its machine has.
        message_memory: u64::MAX,
        restart: RestartPolicy {
            intensity: config.worker.restart_intensity,
            window: config.worker.restart_window,
            ..RestartPolicy::default()
        },
    })
}

fn stage(config: &Config, name: StageName) -> &Stage {
    match name {
        StageName::Input => &config.stages.input,
        StageName::Context => &config.stages.context,
        StageName::External => &config.stages.external,
        StageName::Generation => &config.stages.generation,
        StageName::Persistence => &config.stages.persistence,
    }
}

fn source(source: &Source) -> SourceSpec {
    let retry = source.retry.policy();
    // The answer does not wait for a source longer than its own timeouts and delays add up to; for one that it requires
    // it waits as for a model, so that a breaker's cooldown or what the source asks to wait fails nothing.
    let longest_wait = if source.required { HOLD_LIMIT } else { retry.max_delay };
    let patience = Patience { longest_wait, total: (source.timeout + longest_wait) * retry.max_attempts };
    SourceSpec {
        name: source.name.clone(),
        url: source.url.template.expose().to_owned(),
        recorded_url: source.url.template.for_the_record(),
        method: source.method,
        headers: source.filled_headers(),
        body: source.body.clone().map(|body| body.0),
        keywords: source.keywords.clone(),
        extract: source.extract.clone(),
        defaults: source.defaults.clone(),
        max_matches: source.max_matches,
        required: source.required,
        timeout: source.timeout,
        max_bytes: source.max_bytes,
        policy: DependencyPolicy { retry, breaker: source.breaker.policy(), patience },
    }
}
