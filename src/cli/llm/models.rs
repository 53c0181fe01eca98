//! `throughline llm models`: what is known of each model, and who says so.

use std::{collections::BTreeSet, num::NonZeroU32};

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use futures_util::{StreamExt, stream};
use rust_decimal::Decimal;
use serde::Serialize;

use super::ModelsArgs;
use crate::{
    cli::{Exit, Failure, doctor::reach::connect, output},
    config::{Config, Env},
    llm::{KnownModel, PriceSource, RouteError, known_models},
};

/// Connections tried at once.
const AT_ONCE: usize = 16;

/// One model.
#[derive(Serialize)]
struct Row {
    name: String,
    provider: String,
    kind: &'static str,
    model: String,
    context_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    requests_per_minute: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    input_usd_per_million: Option<Decimal>,
    cached_input_usd_per_million: Option<Decimal>,
    cache_write_usd_per_million: Option<Decimal>,
    output_usd_per_million: Option<Decimal>,
    /// Prompts with more tokens cost more.
    long_prompt_above: Option<u64>,
    /// `configured`, `listed` or `unknown`.
    price: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_read: Option<&'static str>,
    /// `present`, `missing` or `not needed`.
    key: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reachable: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(super) async fn run(args: &ModelsArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let known = known_models(config).map_err(|error: RouteError| Failure::configuration(&error))?;
    if known.is_empty() {
        return Err(Failure {
            exit: Exit::BadConfiguration,
            message: "no model is configured: add [[providers]] and [[models]], or set OPENAI_API_KEY, \
                      ANTHROPIC_API_KEY, GEMINI_API_KEY or OPENAI_BASE_URL"
                .to_owned(),
        });
    }
    let mut rows: Vec<Row> = known.iter().map(|known| row(known, env)).collect();
    if args.check {
        let urls: Vec<&str> = known.iter().map(|known| known.provider.base_url.expose()).collect();
        let found: Vec<_> = stream::iter(urls).map(connect).buffered(AT_ONCE).collect().await;
        for (row, found) in rows.iter_mut().zip(found) {
            row.reachable = Some(found.is_ok());
            row.problem = found.err();
        }
    }
    if args.json {
        output::line(&serde_json::to_string(&rows).map_err(Failure::failed)?)?;
    } else {
        output::line(&table(&rows, args.check))?;
        for line in sources(&known) {
            output::line(&line)?;
        }
        for row in rows.iter().filter(|row| row.problem.is_some()) {
            output::note(&format!("{}: {}", row.provider, row.problem.as_deref().unwrap_or_default()));
        }
    }
    if rows.iter().any(|row| row.reachable == Some(false)) {
        return Err(Failure { exit: Exit::Unavailable, message: String::new() });
    }
    Ok(())
}

fn row(known: &KnownModel<'_>, env: &Env) -> Row {
    let target = &known.target;
    let provider = known.provider;
    let price = target.price;
    let (name, source, read) = match known.price_source {
        PriceSource::Configured => ("configured", None, None),
        PriceSource::Listed { source, read } => ("listed", Some(source), Some(read)),
        PriceSource::Unknown => ("unknown", None, None),
    };
    let key = if provider.api_keys.is_empty() {
        if provider.is_vendor() { "missing" } else { "not needed" }
    } else if provider.api_keys.iter().all(|key| key.resolve(env).is_ok()) {
        "present"
    } else {
        "missing"
    };
    Row {
        name: target.name.clone(),
        provider: target.provider.clone(),
        kind: provider.kind.as_str(),
        model: target.model.clone(),
        context_tokens: target.context_tokens,
        max_output_tokens: target.max_output_tokens,
        requests_per_minute: target.rates.requests_per_minute,
        tokens_per_minute: target.rates.tokens_per_minute,
        input_usd_per_million: price.map(|price| price.input),
        cached_input_usd_per_million: price.and_then(|price| price.cached_input),
        cache_write_usd_per_million: price.and_then(|price| price.cache_write),
        output_usd_per_million: price.map(|price| price.output),
        long_prompt_above: price.and_then(|price| Some(price.long_prompt?.above)),
        price: name,
        price_source: source,
        price_read: read,
        key,
        reachable: None,
        problem: None,
    }
}

fn table(rows: &[Row], checked: bool) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let mut header = vec![
        "model",
        "provider",
        "window",
        "answer",
        "input $/M",
        "cached",
        "output",
        "price",
        "per minute",
        "key",
    ];
    if checked {
        header.push("reachable");
    }
    table.set_header(header);
    for row in rows {
        let tokens = |tokens: Option<u32>| tokens.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        let dollars =
            |price: Option<Decimal>| price.map_or_else(|| "-".to_owned(), |price| price.to_string());
        let price = match row.price_read {
            Some(read) => format!("listed {read}{}", if row.long_prompt_above.is_some() { " *" } else { "" }),
            None => row.price.to_owned(),
        };
        let limits = [(row.requests_per_minute, "requests"), (row.tokens_per_minute, "tokens")]
            .into_iter()
            .filter_map(|(limit, of)| Some(format!("{} {of}", limit?)))
            .collect::<Vec<_>>()
            .join(", ");
        let name =
            if row.name == row.model { row.name.clone() } else { format!("{} ({})", row.name, row.model) };
        let mut cells = vec![
            name,
            format!("{} ({})", row.provider, row.kind),
            tokens(row.context_tokens),
            tokens(row.max_output_tokens),
            dollars(row.input_usd_per_million),
            dollars(row.cached_input_usd_per_million),
            dollars(row.output_usd_per_million),
            price,
            if limits.is_empty() { "no limit".to_owned() } else { limits },
            row.key.to_owned(),
        ];
        if let Some(reachable) = row.reachable {
            cells.push(if reachable { "yes" } else { "no" }.to_owned());
        }
        table.add_row(cells);
    }
    table.to_string()
}

/// Where listed prices come from, and what the table has no room for.
fn sources(known: &[KnownModel<'_>]) -> Vec<String> {
    let listed: BTreeSet<_> = known
        .iter()
        .filter_map(|known| match known.price_source {
            PriceSource::Listed { source, read } => Some((source, read)),
            PriceSource::Configured | PriceSource::Unknown => None,
        })
        .collect();
    let mut lines: Vec<String> =
        listed.into_iter().map(|(source, read)| format!("listed prices: {source}, as of {read}")).collect();
    for known in known {
        if let Some(long) = known.target.price.and_then(|price| price.long_prompt) {
            lines.push(format!(
                "* {}: prompts of more than {} tokens cost {} and {} dollars a million",
                known.target.name, long.above, long.input, long.output
            ));
        }
    }
    lines
}
