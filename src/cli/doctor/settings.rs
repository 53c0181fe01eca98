//! What can be checked without asking anybody: configuration, prompt and secrets.

use throughline_schemas::StageName;

use super::finding::Finding;
use crate::{
    app::{Tried, engine_settings, load_tried_prompt, mistake_in_words},
    cli::exit::with_causes,
    config::{Config, Env},
};

pub(super) fn check(config: &Config, env: &Env) -> Vec<Finding> {
    // That it could be read at all has been found out before any command runs.
    let configuration = match engine_settings(config, &StageName::ALL) {
        Ok(_) => Finding::ok(
            "configuration",
            format!(
                "namespace {}, model {}, {} sources, {} providers",
                config.nats.namespace,
                config.generation.model,
                config.sources.len(),
                config.providers.len()
            ),
        ),
        Err(error) => Finding::fail("configuration", error.to_string(), ""),
    };
    let prompt = match load_tried_prompt(config) {
        Ok(Tried { doubts, .. }) => match doubts.first() {
            None => Finding::ok("prompt", format!("{} makes prompts of made-up messages", config.prompt.id)),
            Some(doubt) => Finding::warn(
                "prompt",
                format!("of a made-up message it makes none: {}", mistake_in_words(doubt)),
                "see whether real messages are otherwise",
            ),
        },
        Err(error) => Finding::fail("prompt", on_one_line(&with_causes(&error)), ""),
    };
    let missing = config.missing_secrets(env);
    let secrets = if missing.is_empty() {
        vec![Finding::ok("secrets", "all that are configured have a value")]
    } else {
        missing
            .iter()
            .map(|problem| Finding::fail("secrets", problem.to_string(), "set it before starting a worker"))
            .collect()
    };
    let cleartext = config.cleartext(env);
    let cleartext = cleartext
        .iter()
        .map(|problem| Finding::fail("secrets", problem.to_string(), "a worker refuses to start like this"));
    let unused = config.unused_database().map(|unused| Finding::warn("database", unused, ""));
    [configuration, prompt].into_iter().chain(secrets).chain(cleartext).chain(unused).collect()
}

fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    fn findings(text: &str, env: &Env) -> Vec<(String, Status)> {
        let layers = Layers { env: env.clone(), ..Layers::default() };
        let config = layers.load_text("t.toml", text).unwrap();
        check(&config, env).into_iter().map(|finding| (finding.name, finding.status)).collect()
    }

    #[test]
    fn a_missing_provider_and_a_missing_key_are_failures() {
        let named = |name: &str, status| (name.to_owned(), status);
        let without = findings("", &Env::new());
        assert!(without.contains(&named("configuration", Status::Fail)), "{without:?}");
        let provider = "[[providers]]\nname = \"p\"\nkind = \"openai\"\napi_key = \"env:THE_KEY\"\n";
        let keyless = findings(provider, &Env::new());
        assert!(keyless.contains(&named("secrets", Status::Fail)), "{keyless:?}");
        let env = Env::from([("THE_KEY".to_owned(), "hunter2".to_owned())]);
        assert!(findings(provider, &env).iter().all(|(_, status)| *status == Status::Ok));
    }
}
