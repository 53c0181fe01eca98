//! `[[models]]`: who answers, how much it can take, and what it costs.

use rust_decimal::Decimal;

use super::field::Field;
use super::providers::Rates;
use super::reader::Section;
use super::tree::Value;

/// How a request to a model of an `openai` provider names the limit on its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTokensField {
    /// `max_tokens`: what everybody understands but `OpenAI`'s reasoning models.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

impl MaxTokensField {
    /// The field's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

impl Field for MaxTokensField {
    fn read(value: &Value) -> Result<Self, String> {
        let name = String::read(value)?;
        [Self::MaxTokens, Self::MaxCompletionTokens]
            .into_iter()
            .find(|field| field.as_str() == name)
            .ok_or_else(|| {
                format!("{name:?} is no such field; use \"max_tokens\" or \"max_completion_tokens\"")
            })
    }

    fn shown(&self) -> toml::Value {
        toml::Value::String(self.as_str().to_owned())
    }
}

/// One model. What is not given here is looked up in the shipped price list; what is not there is unknown, never zero.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// As `generation.model` names it; unique.
    pub name: String,
    /// The name of its provider.
    pub provider: String,
    /// Its name at the provider. Default: `name`.
    pub model: String,
    /// How many tokens prompt and answer may have together.
    pub context_tokens: Option<u32>,
    /// How many tokens its answer can have.
    pub max_output_tokens: Option<u32>,
    /// US dollars for a million input tokens.
    pub input_usd_per_million: Option<Decimal>,
    /// US dollars for a million input tokens that the provider had cached. Default: as other input tokens.
    pub cached_input_usd_per_million: Option<Decimal>,
    /// US dollars for a million input tokens that the provider puts into its cache. Default: as other input tokens.
    pub cache_write_usd_per_million: Option<Decimal>,
    /// US dollars for a million output tokens, reasoning included.
    pub output_usd_per_million: Option<Decimal>,
    /// US dollars for each request, beside its tokens. Default: none.
    pub request_usd: Option<Decimal>,
    /// Limits for this model alone, beside its provider's.
    pub rates: Rates,
    /// Only for `openai` providers. Default: as the price list says, else `max_tokens`.
    pub max_tokens_field: Option<MaxTokensField>,
    /// Whether requests carry `temperature` and `top_p`, which some models refuse. Default: as the price list says,
    /// else true.
    pub send_temperature: Option<bool>,
}

impl Model {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let name = s.required("name", |name: &String| check_model(name)).unwrap_or_default();
        let model = Self {
            provider: s.required("provider", |_: &String| Ok(())).unwrap_or_default(),
            model: s.or_where("model", name.clone(), |name| check_model(name)),
            name,
            context_tokens: s.optional_where("context_tokens", |tokens| check_tokens(*tokens)),
            max_output_tokens: s.optional_where("max_output_tokens", |tokens| check_tokens(*tokens)),
            input_usd_per_million: s.optional_where("input_usd_per_million", check_price),
            cached_input_usd_per_million: s.optional_where("cached_input_usd_per_million", check_price),
            cache_write_usd_per_million: s.optional_where("cache_write_usd_per_million", check_price),
            output_usd_per_million: s.optional_where("output_usd_per_million", check_price),
            request_usd: s.optional_where("request_usd", check_price),
            rates: Rates::read(s),
            max_tokens_field: s.optional("max_tokens_field"),
            send_temperature: s.optional("send_temperature"),
        };
        for key in PRICES {
            // Half a price would make a cost that is wrong and looks right.
            let missing = PRICES[..2].iter().find(|needed| !s.was_written(needed));
            if let Some(missing) = missing.filter(|_| s.was_written(key)) {
                s.conflict(key, format!("needs {missing} beside it"));
            }
        }
        model
    }

    /// A model that is not configured.
    pub(super) fn implicit(name: &str, provider: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider: provider.to_owned(),
            model: name.to_owned(),
            ..Self::default()
        }
    }
}

/// The keys of prices; the first two are needed for any.
const PRICES: [&str; 5] = [
    "input_usd_per_million",
    "output_usd_per_million",
    "cached_input_usd_per_million",
    "cache_write_usd_per_million",
    "request_usd",
];

/// Names at providers have slashes, dots and colons: `meta-llama/Llama-3.1-8B`, `llama3:8b`.
pub(super) fn check_model(name: &str) -> Result<(), String> {
    if (1..=256).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Ok(())
    } else {
        Err("is not a model's name of 1 to 256 characters without spaces".to_owned())
    }
}

fn check_tokens(tokens: u32) -> Result<(), String> {
    if tokens == 0 { Err("must be at least 1".to_owned()) } else { Ok(()) }
}

fn check_price(price: &Decimal) -> Result<(), String> {
    if price.is_sign_negative() && !price.is_zero() {
        return Err(format!("{price} is negative"));
    }
    if *price > Decimal::from(1_000_000) {
        return Err(format!("{price} US dollars is out of range; allowed is up to 1000000"));
    }
    Ok(())
}
