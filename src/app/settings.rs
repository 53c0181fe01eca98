//! The configuration, as the engine's settings.

use std::collections::BTreeMap;

use throughline_actors::{
    cost::Price,
    dependency::{DependencyPolicy, Patience},
    model_client::{ClientSettings, ModelTarget, Sampling},
    policy::{breaker::BreakerPolicy, limits::DeliveryLimits, retry::RetryPolicy},
    settings::{EngineSettings, GenerationSettings, StageSettings},
    source_plan::SourceSpec,
    supervisor::RestartPolicy,
};
use throughline_schemas::{IngressLimits, StageName};

use crate::config::{Breaker, Config, Retry, Source, Stage};

/// A model of the route is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no provider for the model {0:?}; configure [[providers]] and [[models]], or set OPENAI_API_KEY or OPENAI_BASE_URL"
)]
pub struct RouteError(String);

/// What the engine needs to know to run `stages`.
pub fn engine_settings(config: &Config, stages: &[StageName]) -> Result<EngineSettings, RouteError> {
    let stages =
        stages.iter().map(|name| (*name, stage_settings(stage(config, *name)))).collect::<BTreeMap<_, _>>();
    let route = if stages.contains_key(&StageName::Generation) {
        config.generation.models().map(|name| target(config, name)).collect::<Result<_, _>>()?
    } else {
        Vec::new()
    };
    Ok(EngineSettings {
        stages,
        ingress: IngressLimits {
            max_input_bytes: config.limits.max_input_bytes,
            max_metadata_bytes: config.limits.max_metadata_bytes,
        },
        recent_turns: config.context.recent_turns,
        sources: config.sources.iter().map(source).collect(),
        generation: GenerationSettings {
            client: ClientSettings {
                sampling: Sampling {
                    max_tokens: config.generation.max_tokens,
                    temperature_milli: Some(thousandths(config.generation.temperature)),
                    stream: false,
                    ..Sampling::default()
                },
                ..ClientSettings::chain(route)
            },
            max_history_chars: config.context.max_history_chars,
            config_id: config.id(),
        },
        ack_wait: config.worker.ack_wait,
        delivery: DeliveryLimits { max_deliveries: config.worker.max_deliver, ..DeliveryLimits::default() },
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

fn stage_settings(stage: &Stage) -> StageSettings {
    StageSettings {
        concurrency: stage.concurrency,
        retry: retry(stage.retry),
        breaker: breaker(stage.breaker),
    }
}

fn retry(retry: Retry) -> RetryPolicy {
    RetryPolicy { max_attempts: retry.max_attempts, base_delay: retry.base_delay, max_delay: retry.max_delay }
}

fn breaker(breaker: Breaker) -> BreakerPolicy {
    BreakerPolicy { failure_limit: breaker.failures, cooldown: breaker.cooldown }
}

fn source(source: &Source) -> SourceSpec {
    let retry = retry(source.retry);
    // The answer does not wait for a source longer than its own timeouts and delays add up to.
    let patience = Patience {
        longest_wait: retry.max_delay,
        total: (source.timeout + retry.max_delay) * retry.max_attempts,
    };
    SourceSpec {
        name: source.name.clone(),
        url: source.url.template.expose().to_owned(),
        keywords: source.keywords.clone(),
        extract: source.extract.clone(),
        defaults: source.defaults.clone(),
        max_matches: source.max_matches,
        timeout: source.timeout,
        max_bytes: source.max_bytes,
        policy: DependencyPolicy { retry, breaker: breaker(source.breaker), patience },
    }
}

fn target(config: &Config, name: &str) -> Result<ModelTarget, RouteError> {
    let missing = || RouteError(name.to_owned());
    let configured = config.model(name);
    let (provider, model) = match (configured, config.providers.as_slice()) {
        (Some(model), _) => (&model.provider, model.model.as_str()),
        (None, [only]) => (&only.name, name),
        (None, _) => return Err(missing()),
    };
    let price = configured.and_then(|model| {
        Some(Price {
            input: model.input_usd_per_million?,
            cached_input: model.cached_input_usd_per_million,
            cache_write: None,
            output: model.output_usd_per_million?,
        })
    });
    Ok(ModelTarget { price, ..ModelTarget::new(name, provider, model) })
}

fn thousandths(temperature: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to 2")]
    let milli = (temperature * 1000.0).round() as u32;
    milli
}
