//! Which models will be asked, and what that may cost.

use rust_decimal::Decimal;

use crate::{
    cli::Failure,
    config::Config,
    llm::{KnownModel, RouteError, client_settings, known_models},
};

/// Tokens of a prompt like that of the first message.
const PROMPT_TOKENS: u32 = 700;
const MILLION: u32 = 1_000_000;
/// Digits behind the point that a person wants to read.
const DIGITS: u32 = 5;

/// One line for each model that may be asked.
pub(super) fn words(config: &Config, is_stand_in: bool) -> Result<Vec<String>, Failure> {
    let unknown = |error: RouteError| Failure::configuration(&error);
    let routing = client_settings(config).map_err(unknown)?.routing;
    let asked: Vec<&str> = routing.models().collect();
    let known = known_models(config).map_err(unknown)?;
    let known = known.iter().filter(|known| asked.contains(&known.target.name.as_str()));
    Ok(known.map(|known| one(known, config.generation.max_tokens, is_stand_in)).collect())
}

fn one(known: &KnownModel<'_>, max_tokens: u32, is_stand_in: bool) -> String {
    let target = &known.target;
    if is_stand_in {
        return format!("{}, a stand-in on this machine: it costs nothing", target.model);
    }
    let who = format!("{} of {} at {}", target.model, target.provider, known.provider.base_url);
    let Some(price) = target.price else {
        return format!("{who}; what it costs is not known here, and the first message asks it");
    };
    let answer = target.max_output_tokens.map_or(max_tokens, |most| most.min(max_tokens));
    let most = (price.input * Decimal::from(PROMPT_TOKENS) + price.output * Decimal::from(answer))
        / Decimal::from(MILLION);
    format!(
        "{who}; ${} a million tokens in, ${} out: an answer to a short question costs up to ${}, and the first message \
         asks for one",
        price.input.normalize(),
        price.output.normalize(),
        most.round_dp(DIGITS).normalize()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Layers;

    fn config(pairs: &[(&str, &str)]) -> Config {
        let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Layers { env, ..Layers::default() }.load_text("t.toml", "").unwrap()
    }

    #[test]
    fn a_vendors_model_is_named_with_its_price_and_another_ones_without() {
        let told = words(&config(&[("OPENAI_API_KEY", "k")]), false).unwrap();
        let [told] = told.as_slice() else { unreachable!("one model: {told:?}") };
        for part in
            ["gpt-4o-mini of openai at https://api.openai.com", "$0.15 a million", "$0.6 out", "up to $0.000"]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        let elsewhere = [("OPENAI_API_KEY", "k"), ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")];
        let told = words(&config(&elsewhere), false).unwrap().join("\n");
        assert!(told.contains("what it costs is not known here"), "{told}");
    }
}
