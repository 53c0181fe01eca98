//! The configured models and providers, as the model client and its adapters want them. What the configuration leaves
//! open, the shipped price list says ([`crate::prices`]).

use std::{collections::BTreeMap, num::NonZeroU32};

use throughline_actors::{
    cost::Price,
    model_client::{ClientSettings, ModelTarget, OlderTurns, RateLimits, Sampling},
    policy::routing::Routing,
    ports::model::AnswerFormat,
};

use crate::{
    config::{self, AnswerForm, Config, Model, Provider, Rates},
    prices::{self, Listed},
};

/// A model of a route is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no provider for the model {0:?}; configure [[providers]] and [[models]], or set OPENAI_API_KEY, \
     ANTHROPIC_API_KEY, GEMINI_API_KEY or OPENAI_BASE_URL"
)]
pub struct RouteError(pub(super) String);

/// Where a model's price comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PriceSource {
    /// The configuration.
    Configured,
    /// The shipped list.
    Listed {
        /// The vendor's page.
        source: &'static str,
        /// The day as of which it says so.
        read: &'static str,
    },
    /// It is not known.
    Unknown,
}

/// A model with everything that is known of it.
#[derive(Debug, Clone)]
pub struct KnownModel<'c> {
    /// Its provider.
    pub provider: &'c Provider,
    /// As the model client wants it.
    pub target: ModelTarget,
    /// Where its price comes from.
    pub price_source: PriceSource,
    /// Whether requests carry `temperature` and `top_p`.
    pub send_temperature: Option<bool>,
    /// How requests name the limit on the answer.
    pub max_tokens_field: Option<config::MaxTokensField>,
}

/// Every model of the configuration, in its order.
pub fn known_models(config: &Config) -> Result<Vec<KnownModel<'_>>, RouteError> {
    config
        .models
        .iter()
        .map(|model| {
            let provider = config.provider(&model.provider).ok_or_else(|| RouteError(model.name.clone()))?;
            Ok(known(model, provider))
        })
        .collect()
}

fn known<'c>(model: &Model, provider: &'c Provider) -> KnownModel<'c> {
    let listed = prices::listed(provider, &model.model);
    let (price, price_source) = match (configured_price(model), listed) {
        (Some(price), _) => (Some(price), PriceSource::Configured),
        (None, Some(Listed { price, source, read, .. })) => {
            (Some(price), PriceSource::Listed { source, read })
        }
        (None, None) => (None, PriceSource::Unknown),
    };
    let completion_tokens = listed.filter(|listed| listed.wants_completion_tokens);
    KnownModel {
        provider,
        target: ModelTarget {
            price,
            context_tokens: model.context_tokens.or(listed.and_then(|listed| listed.context_tokens)),
            max_output_tokens: model.max_output_tokens.or(listed.and_then(|listed| listed.max_output_tokens)),
            rates: rates(model.rates),
            ..ModelTarget::new(&model.name, &provider.name, &model.model)
        },
        price_source,
        send_temperature: model.send_temperature.or(listed.map(|listed| listed.takes_sampling)),
        max_tokens_field: model
            .max_tokens_field
            .or(completion_tokens.map(|_| config::MaxTokensField::MaxCompletionTokens)),
    }
}

fn configured_price(model: &Model) -> Option<Price> {
    Some(Price {
        input: model.input_usd_per_million?,
        cached_input: model.cached_input_usd_per_million,
        cache_write: model.cache_write_usd_per_million,
        output: model.output_usd_per_million?,
        long_prompt: None,
    })
}

fn rates(rates: Rates) -> RateLimits {
    RateLimits {
        requests_per_minute: rates.requests_per_minute.and_then(NonZeroU32::new),
        tokens_per_minute: rates.tokens_per_minute.and_then(NonZeroU32::new),
    }
}

/// What the model client is told.
pub fn client_settings(config: &Config) -> Result<ClientSettings, RouteError> {
    let models: Vec<ModelTarget> = known_models(config)?.into_iter().map(|known| known.target).collect();
    let generation = &config.generation;
    let unknown = generation.models().find(|name| !models.iter().any(|model| model.name == **name));
    if let Some(name) = unknown {
        return Err(RouteError(name.to_owned()));
    }
    let provider_rates: BTreeMap<String, RateLimits> =
        config.providers.iter().map(|provider| (provider.name.clone(), rates(provider.rates))).collect();
    Ok(ClientSettings {
        models,
        provider_rates,
        routing: routing(config),
        fallback_on: generation.fallback_on.iter().copied().collect(),
        fallback_patience: generation.fallback_patience,
        rate_patience: generation.rate_patience,
        older_turns: match (generation.older_turns, &generation.summary_model) {
            (config::OlderTurns::Drop, _) => OlderTurns::Drop,
            (config::OlderTurns::Summarise, Some(model)) => OlderTurns::Summarise(model.clone()),
            (config::OlderTurns::Extract | config::OlderTurns::Summarise, _) => OlderTurns::Extract,
        },
        sampling: Sampling {
            max_tokens: generation.max_tokens,
            temperature_milli: Some(thousandths(generation.temperature)),
            top_p_milli: generation.top_p.map(thousandths),
            stop: generation.stop.clone(),
            format: match generation.format {
                AnswerForm::Text => AnswerFormat::Text,
                AnswerForm::Json => AnswerFormat::Json(None),
            },
            stream: generation.stream,
        },
    })
}

fn routing(config: &Config) -> Routing {
    let routing = &config.routing;
    Routing {
        default: config.generation.models().map(str::to_owned).collect(),
        simple: routing.simple.clone(),
        moderate: routing.moderate.clone(),
        complex: routing.complex.clone(),
        rules: routing.rules.clone(),
        otherwise: routing.otherwise,
        requested_model: routing.requested_model,
        requested_complexity: routing.requested_complexity,
    }
}

fn thousandths(number: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: 0 to 2")]
    let milli = (number * 1000.0).round() as u32;
    milli
}
