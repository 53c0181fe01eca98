//! The configuration as its user meets it: layers, mistakes, secrets, the shipped example.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod layers;
mod mistakes;
mod secrets;
mod shown;

use super::*;

/// The contract's example, word for word.
const CONTRACT: &str = r#"
[nats]
url = "nats://127.0.0.1:4222"        # credentials_file, tls... where needed
namespace = "throughline"
[database]
url = "sqlite://throughline.db"      # or postgres://...
[http]
listen = "127.0.0.1:8080"            # /healthz /readyz /metrics now; gateway and console later
[[sources]]                          # external data: fetched concurrently, each with its own timeout, retry and breaker
name = "user_profile"
url = "http://crm.internal/profile/{user_id}"
[[sources]]
name = "order_history"
url = "http://orders.internal/orders/{user_id}"
keywords = ["order", "purchase"]     # only when the text mentions one of these
[[sources]]
name = "product_info"
url = "http://inventory.internal/products/{product_id}"
keywords = ["product", "headphone"]
extract = { product_id = '(?i)\b(PROD-\d+)\b' }   # named values taken from the text, percent-encoded into the URL
defaults = { product_id = "PROD-001" }
timeout_ms = 2000
[[providers]]
name = "openai"
kind = "openai"                      # openai (and everything compatible), anthropic, gemini
base_url = "https://api.openai.com/v1"
api_key = "env:OPENAI_API_KEY"
[[models]]
name = "gpt-4o-mini"
provider = "openai"
input_usd_per_million = "0.15"
output_usd_per_million = "0.60"
[generation]
model = "gpt-4o-mini"
fallback = []                        # tried in order when a model cannot answer
max_tokens = 1000
temperature = 0.7
stream = true                        # ask providers to stream (live tokens); false: one whole response
connect_timeout_ms = 10000           # connect, first token, between tokens, and the whole call have their own limits
first_token_timeout_ms = 60000
read_timeout_ms = 30000
total_timeout_ms = 120000
[stages.generation]                  # the same keys for every stage
concurrency = 64
max_attempts = 4
base_delay_ms = 1000
max_delay_ms = 60000
breaker_failures = 5
breaker_cooldown_ms = 30000
"#;

const CANARY: &str = "canary-7f3a";

fn layers(env: &[(&str, &str)], overrides: &[(&str, &str, &str)]) -> Layers {
    Layers {
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        overrides: overrides.iter().map(|(flag, key, value)| Override::new(*flag, *key, *value)).collect(),
        ..Layers::default()
    }
}

fn load(text: &str, env: &[(&str, &str)]) -> Config {
    layers(env, &[]).load_text("t.toml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let errors = layers(env, &[]).load_text("t.toml", text).expect_err("must be refused");
    errors.to_string().lines().map(str::to_owned).collect()
}
