//! The shipped price list, `deploy/prices.toml`: what vendors charge for their models, how much those can take, and
//! what requests to them must not carry. Dated, with its source; the configuration overrides it.

use std::sync::LazyLock;

use rust_decimal::Decimal;
use serde::Deserialize;
use throughline_actors::model::cost::{LongPrompt, Price};

use crate::config::{Provider, ProviderKind};

const SHIPPED: &str = include_str!("../deploy/prices.toml");

static LIST: LazyLock<List> = LazyLock::new(|| {
    // Tests read it, so that it is always valid; a program that ships another one knows no prices.
    toml::from_str(SHIPPED).unwrap_or_else(|error| {
        tracing::error!(%error, "the shipped price list cannot be read; no list price is known");
        List::default()
    })
});

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    vendors: Vec<Vendor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vendor {
    kind: String,
    source: String,
    read: String,
    models: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    context_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    input: Decimal,
    cached_input: Option<Decimal>,
    cache_write: Option<Decimal>,
    output: Decimal,
    request: Option<Decimal>,
    long_prompt: Option<Long>,
    #[serde(default = "yes")]
    sampling: bool,
    #[serde(default)]
    completion_tokens: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    above: u64,
    input: Decimal,
    cached_input: Option<Decimal>,
    cache_write: Option<Decimal>,
    output: Decimal,
}

fn yes() -> bool {
    true
}

/// What the list says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its price.
    pub price: Price,
    /// How many tokens prompt and answer may have together, if that is known.
    pub context_tokens: Option<u32>,
    /// How many tokens its answer can have, if that is known.
    pub max_output_tokens: Option<u32>,
    /// Whether it takes `temperature` and `top_p`.
    pub takes_sampling: bool,
    /// Whether it wants `max_completion_tokens` in place of `max_tokens`.
    pub wants_completion_tokens: bool,
    /// The page that says so.
    pub source: &'static str,
    /// The day as of which it says so, as `2026-01-31`.
    pub read: &'static str,
}

/// What the list says of a model at a provider. Nothing, if the provider is not the vendor itself: others who serve
/// a model of the same name charge what they like.
pub fn listed(provider: &Provider, model: &str) -> Option<Listed> {
    provider.is_vendor().then(|| of_vendor(provider.kind, model)).flatten()
}

fn of_vendor(kind: ProviderKind, model: &str) -> Option<Listed> {
    let vendor = LIST.vendors.iter().find(|vendor| vendor.kind == kind.as_str())?;
    let find = |name: &str| vendor.models.iter().find(|entry| entry.name == name);
    let entry = find(model).or_else(|| find(undated(model)?))?;
    let long_prompt = entry.long_prompt.as_ref().map(|long| LongPrompt {
        above: long.above,
        input: long.input,
        cached_input: long.cached_input,
        cache_write: long.cache_write,
        output: long.output,
    });
    Some(Listed {
        price: Price {
            input: entry.input,
            cached_input: entry.cached_input,
            cache_write: entry.cache_write,
            output: entry.output,
            request: entry.request,
            long_prompt,
        },
        context_tokens: entry.context_tokens,
        max_output_tokens: entry.max_output_tokens,
        takes_sampling: entry.sampling,
        wants_completion_tokens: entry.completion_tokens,
        source: &vendor.source,
        read: &vendor.read,
    })
}

/// The name without its date: `gpt-4o-mini-2024-07-18`, `claude-haiku-4-5-20251001`.
fn undated(model: &str) -> Option<&str> {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let (base, last) = model.rsplit_once('-')?;
    if digits(last, 8) {
        return Some(base);
    }
    let (base, month) = base.rsplit_once('-')?;
    let (base, year) = base.rsplit_once('-')?;
    (digits(last, 2) && digits(month, 2) && digits(year, 4)).then_some(base)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Layers;

    fn provider(text: &str) -> Provider {
        let text = format!("[[providers]]\nname = 'p'\n{text}");
        Layers::default().load_text("t.toml", &text).unwrap().providers.remove(0)
    }

    #[test]
    fn the_shipped_list_is_readable_dated_sourced_and_plausible() {
        let list: List = toml::from_str(SHIPPED).unwrap();
        let kinds: BTreeSet<_> = list.vendors.iter().map(|vendor| vendor.kind.as_str()).collect();
        assert_eq!(kinds, ProviderKind::ALL.map(ProviderKind::as_str).into());
        for vendor in &list.vendors {
            assert!(vendor.source.starts_with("https://"), "{vendor:?}");
            let format = time::macros::format_description!("[year]-[month]-[day]");
            assert!(time::Date::parse(&vendor.read, &format).is_ok(), "{vendor:?}");
            let mut names = BTreeSet::new();
            for entry in &vendor.models {
                let Entry { name, input, cached_input, cache_write, output, .. } = entry;
                assert!(names.insert(name), "{name} is listed twice");
                assert!(*input > Decimal::ZERO && output >= input, "{entry:?}");
                assert!(cached_input.is_none_or(|cached| cached < *input), "{entry:?}");
                assert!(cache_write.is_none_or(|write| write > *input), "{entry:?}");
                if let Some(long) = &entry.long_prompt {
                    assert!(long.input > *input && long.output > *output, "{entry:?}");
                    assert!(
                        entry.context_tokens.is_none_or(|window| u64::from(window) > long.above),
                        "{entry:?}"
                    );
                }
                if let (Some(window), Some(answer)) = (entry.context_tokens, entry.max_output_tokens) {
                    assert!(answer < window, "{entry:?}");
                }
            }
        }
    }

    #[test]
    fn every_vendor_s_default_model_is_listed_and_takes_the_default_temperature() {
        for kind in ProviderKind::ALL {
            let listed = of_vendor(kind, kind.default_model()).unwrap();
            assert!(listed.takes_sampling && listed.context_tokens.is_some(), "{kind:?}");
        }
    }

    #[test]
    fn a_dated_name_costs_what_its_base_costs_unless_it_is_listed_itself() {
        let input = |kind, name| of_vendor(kind, name).map(|listed| listed.price.input.to_string());
        assert_eq!(input(ProviderKind::Openai, "gpt-4o-mini-2024-07-18").as_deref(), Some("0.15"));
        assert_eq!(input(ProviderKind::Openai, "gpt-4o-2024-05-13").as_deref(), Some("5.00"));
        assert_eq!(input(ProviderKind::Anthropic, "claude-haiku-4-5-20251001").as_deref(), Some("1.00"));
        for unknown in ["gpt-4o-mini-audio", "gpt-4", "gpt-4o-mini-2024", "mistral-large", ""] {
            assert_eq!(input(ProviderKind::Openai, unknown), None, "{unknown}");
        }
        assert_eq!(input(ProviderKind::Gemini, "gpt-4o-mini"), None);
    }

    #[test]
    fn another_address_than_the_vendor_s_has_prices_of_its_own() {
        assert!(listed(&provider("kind = 'openai'"), "gpt-4o-mini").is_some());
        for other in
            ["http://127.0.0.1:8000/v1", "https://my.openai.azure.com/openai/v1", "http://api.openai.com/v1"]
        {
            let provider = provider(&format!("kind = 'openai'\nbase_url = '{other}'"));
            assert_eq!(listed(&provider, "gpt-4o-mini"), None, "{other}");
        }
    }
}
