//! The configured models and providers, as the model client and its adapters want them. What the configuration leaves
//! open, the shipped price list says ([`crate::prices`]).

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use throughline_actors::{
    model::{
        client::{ClientSettings, ModelTarget, OlderTurns, RateLimits, Sampling, SettingsError},
        cost::Price,
    },
    policy::{limits::RATE_HOLD_LIMIT, routing::Routing},
    ports::{clock::Clock, model::AnswerFormat},
};

use super::{
    CallLimits, Credential, KeySource, MaxTokensField, ModelOptions, ModelProviders, ModelProvidersError,
    ProviderKind, ProviderSettings, ProviderSpec, SettingValue,
};
use crate::{
    config::{
        self, AnswerForm, Cleartext, Config, Env, Generation, Model, Provider, Rates, Secret, SecretError,
        SourceHeader,
    },
    prices::{self, Listed},
};

/// A model of a route is not configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no provider for the model {0:?}; configure [[providers]] and [[models]], or set OPENAI_API_KEY, \
     ANTHROPIC_API_KEY, GEMINI_API_KEY or OPENAI_BASE_URL"
)]
pub struct RouteError(String);

/// Why models cannot be asked as configured. No message repeats a key.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A model without a provider.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A vendor that asks for a key, and no key.
    #[error("the provider {provider:?} has no key: {advice}")]
    NoKey {
        /// Its name.
        provider: String,
        /// What to do.
        advice: String,
    },
    /// A key that has no value.
    #[error("a key of the provider {provider:?} cannot be read")]
    Key {
        /// The provider.
        provider: String,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// A key would go unencrypted over a network.
    #[error(transparent)]
    Cleartext(#[from] Cleartext),
    /// A header or a query parameter whose secret has no value.
    #[error("a header or a query parameter of the provider {provider:?} cannot be read")]
    Setting {
        /// The provider.
        provider: String,
        /// Why not.
        #[source]
        source: SecretError,
    },
    /// The providers' clients cannot be made.
    #[error(transparent)]
    Providers(#[from] ModelProvidersError),
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

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
    /// How requests to it differ from others.
    pub options: ModelOptions,
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
        options: options(model, listed.as_ref(), kind(provider.kind)),
    }
}

/// The providers of all configured models, with their keys: those in files are read when they change, the others now.
/// A provider that no model uses needs no key.
pub fn model_providers(
    config: &Config,
    env: &Env,
    clock: &Arc<dyn Clock>,
) -> Result<ModelProviders, SetupError> {
    let models = known_models(config)?;
    let mut specs = Vec::new();
    for provider in &config.providers {
        let of_provider = || models.iter().filter(|known| known.provider.name == provider.name);
        if of_provider().next().is_none() {
            continue;
        }
        let name = || provider.name.clone();
        if let Some(advice) = provider.missing_key() {
            return Err(SetupError::NoKey { provider: name(), advice });
        }
        provider.cleartext(env)?;
        let key = |hidden: &Secret| match hidden {
            Secret::File(path) => Ok(KeySource::File(path.clone())),
            Secret::Env(_) => match hidden.resolve(env) {
                Ok(value) => Ok(KeySource::Fixed(Credential::new(value.expose().to_owned()))),
                Err(source) => Err(SetupError::Key { provider: name(), source }),
            },
        };
        specs.push(ProviderSpec {
            name: name(),
            kind: kind(provider.kind),
            base_url: provider.base_url.expose().to_owned(),
            keys: provider.api_keys.iter().map(key).collect::<Result<_, _>>()?,
            options: of_provider().map(|known| (known.target.model.clone(), known.options)).collect(),
            limits: call_limits(&config.generation),
            settings: settings(provider, env)
                .map_err(|source| SetupError::Setting { provider: name(), source })?,
        });
    }
    Ok(ModelProviders::new(specs, clock)?)
}

/// How a provider is reached. Secrets in files are read now.
fn settings(provider: &Provider, env: &Env) -> Result<ProviderSettings, SecretError> {
    let own = [("openai-organization", &provider.organization), ("openai-project", &provider.project)];
    let own = own
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), SettingValue::Plain(value.as_ref()?.clone()))));
    let values = |values: &BTreeMap<String, SourceHeader>| {
        let value = |(name, value): (&String, &SourceHeader)| Ok((name.clone(), sent(value, env)?));
        values.iter().map(value).collect::<Result<Vec<_>, SecretError>>()
    };
    let mut headers: Vec<_> = own.collect();
    headers.extend(values(&provider.headers)?);
    Ok(ProviderSettings {
        key_header: provider.key_header.clone(),
        headers,
        query: values(&provider.query)?,
        proxies: config::proxies(provider.proxy.as_ref(), env),
        sends_finish_reason: provider.sends_finish_reason,
    })
}

fn sent(value: &SourceHeader, env: &Env) -> Result<SettingValue, SecretError> {
    Ok(match value {
        SourceHeader::Plain(text) => SettingValue::Plain(text.clone()),
        SourceHeader::Secret { prefix, secret } => SettingValue::Secret {
            prefix: prefix.clone(),
            secret: Credential::new(secret.resolve(env)?.expose().trim().to_owned()),
        },
    })
}

fn kind(kind: config::ProviderKind) -> ProviderKind {
    match kind {
        config::ProviderKind::Openai => ProviderKind::OpenAi,
        config::ProviderKind::Anthropic => ProviderKind::Anthropic,
        config::ProviderKind::Gemini => ProviderKind::Gemini,
    }
}

fn call_limits(generation: &Generation) -> CallLimits {
    CallLimits {
        connect: generation.connect_timeout,
        first_token: generation.first_token_timeout,
        read: generation.read_timeout,
        total: generation.total_timeout,
        max_response_bytes: generation.max_response_bytes,
    }
}

/// The configuration has the first word, the price list the second, and what the names of models tell the last.
fn options(model: &Model, listed: Option<&Listed>, kind: ProviderKind) -> ModelOptions {
    let usual = ModelOptions::usual(kind, &model.model);
    let field = match model.max_tokens_field {
        Some(config::MaxTokensField::MaxTokens) => Some(MaxTokensField::MaxTokens),
        Some(config::MaxTokensField::MaxCompletionTokens) => Some(MaxTokensField::MaxCompletionTokens),
        None => listed
            .filter(|listed| listed.wants_completion_tokens)
            .map(|_| MaxTokensField::MaxCompletionTokens),
    };
    let sampling = model.send_temperature.or(listed.map(|listed| listed.takes_sampling));
    ModelOptions {
        max_tokens_field: field.unwrap_or(usual.max_tokens_field),
        send_temperature: sampling.unwrap_or(usual.send_temperature),
    }
}

fn configured_price(model: &Model) -> Option<Price> {
    Some(Price {
        input: model.input_usd_per_million?,
        cached_input: model.cached_input_usd_per_million,
        cache_write: model.cache_write_usd_per_million,
        output: model.output_usd_per_million?,
        request: model.request_usd,
        long_prompt: None,
    })
}

fn rates(rates: Rates) -> RateLimits {
    RateLimits {
        requests_per_minute: rates.requests_per_minute.and_then(NonZeroU32::new),
        tokens_per_minute: rates.tokens_per_minute.and_then(NonZeroU32::new),
    }
}

/// Settings of the model client.
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
        rate_total: generation.rate_total,
        rate_hold: RATE_HOLD_LIMIT,
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
