//! `[[providers]]` and `[[models]]`: who answers, and what it costs.

use rust_decimal::Decimal;

use super::connections::check_token;
use super::field::Field;
use super::reader::Section;
use super::secret::Secret;
use super::tree::Value;
use super::url::{SecretUrl, check_base};

/// Where `kind = "openai"` is found unless `base_url` or `OPENAI_BASE_URL` says otherwise.
pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";

/// The protocol that a provider speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderKind {
    /// `OpenAI` and everything compatible with it.
    #[default]
    Openai,
}

impl Field for ProviderKind {
    fn read(value: &Value) -> Result<Self, String> {
        match String::read(value)?.as_str() {
            "openai" => Ok(Self::Openai),
            kind @ ("anthropic" | "gemini") => {
                Err(format!("kind {kind} is not available in this version; use \"openai\""))
            }
            other => {
                Err(format!("{other:?} is no kind of provider; use \"openai\" for compatible ones, too"))
            }
        }
    }

    fn shown(&self) -> toml::Value {
        match self {
            Self::Openai => toml::Value::String("openai".to_owned()),
        }
    }
}

/// One provider of models.
#[derive(Clone, Debug)]
pub struct Provider {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`; unique.
    pub name: String,
    /// Its protocol.
    pub kind: ProviderKind,
    /// Root of its API, without a slash at the end. Default for `openai`: [`OPENAI_BASE_URL`].
    pub base_url: SecretUrl,
    /// Default: `env:OPENAI_API_KEY` where that is set and the provider is `OpenAI` itself or the one that
    /// `OPENAI_BASE_URL` names. Local servers need none.
    pub api_key: Option<Secret>,
}

impl Provider {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let name = s.required("name", |name: &String| check_token(name, 64)).unwrap_or_default();
        let kind = s.required("kind", |_| Ok(())).unwrap_or_default();
        let base_url = s.or_where("base_url", SecretUrl::new(OPENAI_BASE_URL), check_base);
        Self {
            name,
            kind,
            base_url: SecretUrl::new(base_url.expose().trim_end_matches('/')),
            api_key: s.optional("api_key"),
        }
    }
}

/// One model. A price that is not given is unknown, never zero.
#[derive(Clone, Debug)]
pub struct Model {
    /// As `generation.model` names it; unique.
    pub name: String,
    /// The name of its provider.
    pub provider: String,
    /// Its name at the provider. Default: `name`.
    pub model: String,
    /// How many tokens prompt and answer may have together.
    pub context_tokens: Option<u32>,
    /// US dollars for a million input tokens.
    pub input_usd_per_million: Option<Decimal>,
    /// US dollars for a million input tokens that the provider had cached.
    pub cached_input_usd_per_million: Option<Decimal>,
    /// US dollars for a million output tokens.
    pub output_usd_per_million: Option<Decimal>,
}

impl Model {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let name = s.required("name", |name: &String| check_model(name)).unwrap_or_default();
        Self {
            provider: s.required("provider", |_: &String| Ok(())).unwrap_or_default(),
            model: s.or_where("model", name.clone(), |name| check_model(name)),
            name,
            context_tokens: s.optional_where("context_tokens", |tokens: &u32| match tokens {
                0 => Err("must be at least 1".to_owned()),
                _ => Ok(()),
            }),
            input_usd_per_million: s.optional_where("input_usd_per_million", check_price),
            cached_input_usd_per_million: s.optional_where("cached_input_usd_per_million", check_price),
            output_usd_per_million: s.optional_where("output_usd_per_million", check_price),
        }
    }

    /// A model that is not configured, at the only provider there is.
    pub(super) fn implicit(name: &str, provider: &str) -> Self {
        Self {
            name: name.to_owned(),
            provider: provider.to_owned(),
            model: name.to_owned(),
            context_tokens: None,
            input_usd_per_million: None,
            cached_input_usd_per_million: None,
            output_usd_per_million: None,
        }
    }
}

/// Names at providers have slashes, dots and colons: `meta-llama/Llama-3.1-8B`, `llama3:8b`.
pub(super) fn check_model(name: &str) -> Result<(), String> {
    if (1..=256).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Ok(())
    } else {
        Err("is not a model's name of 1 to 256 characters without spaces".to_owned())
    }
}

fn check_price(price: &Decimal) -> Result<(), String> {
    if price.is_sign_negative() && !price.is_zero() {
        return Err(format!("{price} is negative"));
    }
    if *price > Decimal::from(1_000_000) {
        return Err(format!(
            "{price} US dollars for a million tokens is out of range; allowed is up to 1000000"
        ));
    }
    Ok(())
}
