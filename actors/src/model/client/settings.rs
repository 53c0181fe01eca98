//! Settings of the model client: plain values, made by the configuration loader, by a program or by a test.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use crate::{
    model::cost::Price,
    policy::{
        fallback::FallbackOn,
        limits::{FALLBACK_PATIENCE, RATE_HOLD_LIMIT, RATE_PATIENCE, RATE_TOTAL},
        routing::Routing,
    },
    ports::model::AnswerFormat,
};

/// Limits on what is sent in a minute, by this process: several processes share a provider's limit by dividing it in
/// their configurations. `None`: no limit of ours; the provider's own announcements are obeyed all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Tokens, input and output together.
    pub tokens_per_minute: Option<NonZeroU32>,
}

/// A model that may be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelTarget {
    /// Name in the configuration.
    pub name: String,
    /// Name of its provider in the configuration.
    pub provider: String,
    /// The provider's name of the model.
    pub model: String,
    /// Price, if known.
    pub price: Option<Price>,
    /// Its window, prompt and answer together, in tokens; `None`: unknown, and prompts are sent as they are.
    pub context_tokens: Option<u32>,
    /// The longest answer it can give, in tokens; a request for more is lowered to it.
    pub max_output_tokens: Option<u32>,
    /// Limits for this model alone, beside its provider's.
    pub rates: RateLimits,
}

impl ModelTarget {
    /// A model of which nothing but its names is known.
    pub fn new(name: impl Into<String>, provider: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            provider: provider.into(),
            model: model.into(),
            price: None,
            context_tokens: None,
            max_output_tokens: None,
            rates: RateLimits::default(),
        }
    }
}

/// How an answer is made, where a request does not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// Temperature in thousandths; `None`: not sent.
    pub temperature_milli: Option<u32>,
    /// Nucleus sampling (`top_p`) in thousandths; `None`: not sent.
    pub top_p_milli: Option<u32>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// The form that the answer must have.
    pub format: AnswerFormat,
    /// Whether to ask providers for the answer piece by piece.
    pub stream: bool,
}

impl Default for Sampling {
    /// Up to 1,000 tokens of any text at temperature 0.7, streamed.
    fn default() -> Self {
        Self {
            max_tokens: 1_000,
            temperature_milli: Some(700),
            top_p_milli: None,
            stop: Vec::new(),
            format: AnswerFormat::Text,
            stream: true,
        }
    }
}

/// What becomes of earlier turns that do not fit the model's window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OlderTurns {
    /// They are left out.
    Drop,
    /// Their most significant sentences stay, chosen by [`crate::policy::summary`]: no model is asked.
    #[default]
    Extract,
    /// This model, by its name in the configuration, summarises them; its calls are on record and cost what they
    /// cost. When it does not answer, sentences are extracted.
    Summarise(String),
}

/// All settings of the model client.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// Every model that may be asked; the routes name them.
    pub models: Vec<ModelTarget>,
    /// Rate limits of providers, by name.
    pub provider_rates: BTreeMap<String, RateLimits>,
    /// Which models are asked, in which order.
    pub routing: Routing,
    /// After which errors the next model of the route is asked.
    pub fallback_on: BTreeSet<FallbackOn>,
    /// How long a model is waited for while the route has another one that may be asked now.
    pub fallback_patience: Duration,
    /// How long rate limits may hold a request back while another model of the route may be asked.
    pub rate_patience: Duration,
    /// How long they may hold it back in all, over all deliveries, before it fails as rate limited.
    pub rate_total: Duration,
    /// How much of that a caller may be held for.
    pub rate_hold: Duration,
    /// What becomes of earlier turns that do not fit.
    pub older_turns: OlderTurns,
    /// How answers are made.
    pub sampling: Sampling,
}

impl ClientSettings {
    /// Asks these models in this order, everything else by default.
    pub fn chain(models: Vec<ModelTarget>) -> Self {
        let names = models.iter().map(|model| model.name.clone()).collect();
        Self {
            models,
            provider_rates: BTreeMap::new(),
            routing: Routing::chain(names),
            fallback_on: FallbackOn::default_set(),
            fallback_patience: FALLBACK_PATIENCE,
            rate_patience: RATE_PATIENCE,
            rate_total: RATE_TOTAL,
            rate_hold: RATE_HOLD_LIMIT,
            older_turns: OlderTurns::default(),
            sampling: Sampling::default(),
        }
    }

    /// Adds a model at the end of the default route.
    #[must_use]
    pub fn falling_back_to(mut self, model: ModelTarget) -> Self {
        self.routing.default.push(model.name.clone());
        self.models.push(model);
        self
    }
}
