//! The examples that users copy, and what `config show` makes of them.

use std::time::Duration;

use super::*;

const SHIPPED: &str = include_str!("../../../deploy/config/throughline.toml");

#[test]
fn the_contracts_example_loads() {
    let config = load(CONTRACT, &[]);
    assert_eq!(config.sources.len(), 3);
    let product = &config.sources[2];
    assert_eq!(product.url.placeholders, ["product_id"]);
    assert_eq!(&product.extract["product_id"].captures("is prod-42 in stock?").unwrap()[1], "prod-42");
    assert_eq!(product.defaults["product_id"], "PROD-001");
    let model = config.model("gpt-4o-mini").unwrap();
    assert_eq!(model.input_usd_per_million.unwrap().to_string(), "0.15");
    assert_eq!(model.cached_input_usd_per_million, None, "an unknown price is not zero");
    assert_eq!(config.provider("openai").unwrap().api_keys, [Secret::Env("OPENAI_API_KEY".to_owned())]);
    assert_eq!(config.generation.total_timeout, Duration::from_mins(2));
}

#[test]
fn without_anything_there_are_the_defaults_and_no_problems() {
    let (_, problems) = Config::read(Table::new());
    assert_eq!(problems, []);
    let config = load("", &[]);
    assert_eq!(config.nats.url.expose(), "nats://127.0.0.1:4222");
    assert_eq!(config.nats.max_bytes, 2048 << 20);
    let super::super::Stages { input, context, external, generation, persistence } = &config.stages;
    let slots = [input, context, external, generation, persistence].map(|stage| stage.concurrency);
    assert_eq!(slots, [256, 64, 1024, 1024, 256]);
    assert!(config.providers.is_empty() && config.models.is_empty());
    assert!(!config.is_set("nats.url"));
}

#[test]
fn what_is_shown_can_be_loaded_again_and_says_who_set_it() {
    let env = [("THROUGHLINE_SOURCES__PRODUCT_INFO__DEFAULTS__PRODUCT_ID", "PROD-7")];
    let config = load(CONTRACT, &env);
    let shown = config.show();
    let again = load(&shown, &[]);
    assert_eq!(again.show_json()["config"], config.show_json()["config"]);
    assert_eq!(again.id(), config.id());
    let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("namespace = ").ends_with("# t.toml:4"));
    assert!(line("keywords = [\"order\"").ends_with("# t.toml:15"));
    assert!(line("extract.product_id = ").ends_with("# t.toml:20"));
    assert!(line("defaults.product_id = \"PROD-7\"").ends_with(env[0].0));
    assert!(line("recent_turns = 6").ends_with("# default"));
    assert!(line("# token =").ends_with("# not set"));

    let json = config.show_json();
    assert_eq!(json["config"]["sources"][1]["name"], "order_history");
    assert_eq!(json["config"]["stages"]["generation"]["concurrency"], 64);
    assert_eq!(json["origins"]["sources[1].name"], "t.toml:13");
}

#[test]
fn the_id_changes_with_what_shapes_answers_and_with_nothing_else() {
    let id = |env: &[(&str, &str)]| load(CONTRACT, env).id();
    assert_eq!(id(&[]).len(), 16);
    assert_eq!(id(&[]), id(&[("NATS_URL", "nats://elsewhere:4222"), ("THROUGHLINE_LOG__FILTER", "debug")]));
    assert_ne!(id(&[]), id(&[("THROUGHLINE_GENERATION__TEMPERATURE", "0.1")]));
}

/// The shipped file with its example of a source, as a user writes it.
fn with_the_source() -> String {
    let (before, example) = SHIPPED.split_once("\n#[[sources]]\n").unwrap();
    let (example, after) = example.split_once("\n\n").unwrap();
    let example: Vec<&str> = example.lines().map(|line| line.strip_prefix('#').unwrap()).collect();
    format!("{before}\n[[sources]]\n{}\n\n{after}", example.join("\n"))
}

/// A copy of the file has no source that is not there, which every answer would lack.
#[test]
fn the_shipped_file_asks_no_source_before_somebody_says_so() {
    assert_eq!(load(SHIPPED, &[]).sources.len(), 0);
    let config = load(&with_the_source(), &[]);
    let names: Vec<_> = config.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["product_info"]);
}

#[test]
fn the_shipped_file_has_every_key_and_its_true_default() {
    let text = with_the_source();
    let shipped = load(&text, &[]);
    // `#key = value` states a default, `# key = value` is an example of a key that has none.
    let written_out: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let written_out = load(&written_out, &[]);
    assert_eq!(written_out.show_json()["config"], shipped.show_json()["config"]);
    for entry in &written_out.entries {
        if entry.origin == Origin::Default {
            let key = entry.key.split('.').next().unwrap();
            let mentioned = text.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.starts_with(&format!("{key} =")) || line.starts_with(&format!("{key}."))
            });
            assert!(mentioned && entry.value.as_ref().is_none_or(toml::Value::is_table), "{entry:?}");
        }
    }
}
