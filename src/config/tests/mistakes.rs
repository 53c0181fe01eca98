//! Mistakes: all at once, each with its place and its remedy.

use super::*;

#[test]
fn all_mistakes_are_reported_at_once_each_at_its_line() {
    let file = r#"
[nats]
namespace = "a.b"
replicas = 9
[database]
url = "mysql://h/db"
[http]
listen = 8080
[[sources]]
name = "crm"
url = "http://{user_id}.internal/"
[[sources]]
name = "crm"
url = "http://h/{product_id}/{order_id}"
extract = { product_id = "(", user_id = "x" }
timout_ms = 1
[[sources]]
name = "late"
base_delay_ms = 5000
[[providers]]
name = "claude"
kind = "anthropc"
[[models]]
name = "big"
provider = "clade"
input_usd_per_million = 0.15
output_usd_per_million = "-1"
[generation]
model = "bigg"
temperature = 3
[stages.generaton]
concurrency = 1
[logs]
[log]
format = "xml"
[prompt]
id = "../x"
"#;
    let env = [
        ("THROUGHLINE_NATS_URL", "x"),
        ("THROUGHLINE_SOURCES__CMR__TIMEOUT_MS", "5"),
        ("THROUGHLINE_WORKER__MAX_DELIVER", "many"),
    ];
    let flags = [("--listen", "http.listen", "here"), ("--set", "nats.urll", "x")];
    let errors = layers(&env, &flags).load_text("t.toml", file).unwrap_err();
    let expected = r#"t.toml:3: nats.namespace: "a.b" is not a name of 1 to 32 characters from A-Z a-z 0-9 _ -
t.toml:4: nats.replicas: 9 is out of range; allowed are 1 to 5
t.toml:6: database.url: mysql:// is no database known here; use sqlite:// or postgres://
t.toml:11: sources[0].url: may have placeholders only after the host
t.toml:13: sources[1].name: "crm" is the name of sources[0] already
t.toml:14: sources[1].url: nothing provides {order_id}: add extract.order_id (a pattern) or defaults.order_id, or use one of {user_id}, {session_id}, {workflow_id}, {user_input}, {time}, {date}, {language}, {metadata.NAME}
t.toml:15: sources[1].extract.product_id: '(' is not a usable regular expression: unclosed group
t.toml:15: sources[1].extract.user_id: {user_id} comes from the message and cannot be taken from the text
t.toml:16: sources[1].timout_ms: unknown key; did you mean "timeout_ms"?
t.toml:17: sources[2].url: is required
t.toml:19: sources[2].base_delay_ms: base_delay_ms (5000) must not exceed max_delay_ms (1000)
t.toml:22: providers[0].kind: "anthropc" is no kind of provider; use "openai" (for compatible ones, too), "anthropic" or "gemini"
t.toml:25: models[0].provider: "clade" is none of [[providers]] (configured: claude); did you mean "claude"?
t.toml:26: models[0].input_usd_per_million: prices are decimals: write the number in quotes, as "0.15"
t.toml:27: models[0].output_usd_per_million: -1 is negative
t.toml:29: generation.model: "bigg" is none of [[models]] (configured: big); did you mean "big"?
t.toml:30: generation.temperature: 3 is out of range; allowed are 0 to 2
t.toml:31: stages.generaton: unknown key; did you mean "generation"?
t.toml:33: logs: unknown key; did you mean "log"?
t.toml:35: log.format: "xml" is no format; use "pretty" or "json"
t.toml:37: prompt.id: "../x" is not a name of 1 to 64 characters from A-Z a-z 0-9 _ -
THROUGHLINE_NATS_URL: nats_url: names no key; did you mean "THROUGHLINE_NATS__URL"?
THROUGHLINE_SOURCES__CMR__TIMEOUT_MS: sources.cmr.timeout_ms: none of [[sources]] has that name (configured: crm, crm, late); did you mean "crm"?
THROUGHLINE_WORKER__MAX_DELIVER: worker.max_deliver: expected an integer, found a string
--listen: http.listen: "here" is not an address and port; write it as "127.0.0.1:8080" or "0.0.0.0:8080"
--set: nats.urll: unknown key; did you mean "url"?
"#;
    assert_eq!(format!("{errors}\n"), expected);
}

#[test]
fn a_broken_line_does_not_hide_the_other_mistakes() {
    let told = refused("[nats]\nurl = nats://h\nurl = 'nats://h'\n[log]\nformt = 'json'\n", &[]);
    assert_eq!(
        told,
        [
            "t.toml:2: not valid TOML: invalid float, expected `nan`; a text needs quotes",
            "t.toml:3: not valid TOML: duplicate key",
            "t.toml:5: log.formt: unknown key; did you mean \"format\"?",
        ]
    );
}

#[test]
fn values_of_the_wrong_shape_are_named() {
    let told = refused("nats = 1\nlog = []\n[sources]\nname = 'x'\n[generation]\nstream = 'yes'\n", &[]);
    assert_eq!(
        told,
        [
            "t.toml:1: nats: expected a table, found an integer",
            "t.toml:2: log: expected a table, found an array",
            "t.toml:3: sources: expected an array of tables, [[sources]], found a table",
            "t.toml:6: generation.stream: expected true or false, found a string",
        ]
    );
}

#[test]
fn nats_takes_one_way_to_authenticate() {
    let told = refused("[nats]\ntoken = 'env:T'\nuser = 'u'\ncredentials_file = 'c'\n", &[]);
    assert_eq!(
        told,
        [
            "t.toml:3: nats.user: cannot be combined with credentials_file: the server takes one of them",
            "t.toml:3: nats.user: needs a password, too",
        ]
    );
}

#[test]
fn a_model_needs_exactly_one_provider_to_be_implied() {
    let two = "[[providers]]\nname = 'a'\nkind = 'openai'\n[[providers]]\nname = 'b'\nkind = 'openai'\n";
    let told = refused(&format!("{two}[generation]\nmodel = 'm'\n"), &[]);
    assert_eq!(
        told,
        ["t.toml:8: generation.model: which provider has \"m\"? Add it to [[models]] with one of: a, b"]
    );
    let config = load(&format!("{two}[[models]]\nname = 'm'\nprovider = 'b'\n"), &[]);
    assert_eq!(config.generation.model, "m", "the first configured model is the default");
}

#[test]
fn mistakes_about_models_and_routes_are_named() {
    let file = r#"[[providers]]
name = "p"
kind = "openai"
base_url = "http://h/v1?key=secret"
api_key = "env:A"
api_keys = ["env:B", "literal"]
requests_per_minute = 0
[[models]]
name = "m"
provider = "p"
cached_input_usd_per_million = "1"
max_tokens_field = "tokens"
[generation]
model = "m"
fallback_on = ["down", "tired"]
older_turns = "summarise"
top_p = 2
stop = ["a", "b", "c", "d", "e"]
format = "xml"
[routing]
simple = ["small"]
otherwise = "hard"
[[routing.rules]]
name = "long"
complexity = "complex"
min_chars = 10
max_chars = 5
patterns = ["("]
[[routing.rules]]
name = "long"
complexity = "simple"
min_token = 1
"#;
    let classes = "context_too_long, content_filtered, rate_limited, down, breaker_open, quota, credentials, \
                   unknown_model, bad_request";
    assert_eq!(
        refused(file, &[]),
        [
            "t.toml:4: providers[0].base_url: has a key in its query; write it as api_key",
            "t.toml:6: providers[0].api_keys: number 2: a secret is not written in the configuration: put it into a \
             variable or a file and write \"env:NAME\" or \"file:PATH\"",
            "t.toml:7: providers[0].requests_per_minute: 0 is out of range; allowed are 1 to 1000000000",
            "t.toml:11: models[0].cached_input_usd_per_million: needs input_usd_per_million beside it",
            "t.toml:12: models[0].max_tokens_field: \"tokens\" is no such field; use \"max_tokens\" or \
             \"max_completion_tokens\"",
            format!("t.toml:15: generation.fallback_on: unknown class \"tired\"; the classes are {classes}")
                .as_str(),
            "t.toml:16: generation.older_turns: needs summary_model beside it",
            "t.toml:17: generation.top_p: 2 is out of range; allowed are 0 to 1",
            "t.toml:18: generation.stop: has 5 texts; allowed are up to 4",
            "t.toml:19: generation.format: \"xml\" is no form of an answer; use \"text\" or \"json\"",
            "t.toml:21: routing.simple: \"small\" is none of [[models]] (configured: m)",
            "t.toml:22: routing.otherwise: \"hard\" is no complexity; use \"simple\", \"moderate\" or \"complex\"",
            "t.toml:27: routing.rules[0].max_chars: min_chars (10) must not exceed max_chars (5)",
            "t.toml:28: routing.rules[0].patterns: number 1: '(' is not a usable regular expression: unclosed group",
            "t.toml:30: routing.rules[1].name: \"long\" is the name of another rule",
            "t.toml:32: routing.rules[1].min_token: unknown key; did you mean \"min_tokens\"?",
        ]
    );
    let both = "[[providers]]\nname = 'p'\nkind = 'gemini'\napi_key = 'env:A'\napi_keys = ['env:B']\n";
    assert_eq!(
        refused(both, &[]),
        ["t.toml:5: providers[0].api_keys: cannot be combined with api_key: write all keys here"]
    );
}

#[test]
fn a_vendor_without_a_key_is_missing_one_and_a_local_server_is_not() {
    let vendor = load("[[providers]]\nname = 'claude'\nkind = 'anthropic'\n", &[]);
    let missing: Vec<String> = vendor.missing_secrets(&Env::new()).iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        [
            "t.toml:2: providers[0].api_key: https://api.anthropic.com needs a key: set ANTHROPIC_API_KEY, or write \
          api_key = \"env:NAME\" or \"file:PATH\""
        ]
    );
    let local =
        load("[[providers]]\nname = 'l'\nkind = 'openai'\nbase_url = 'http://127.0.0.1:8000/v1'\n", &[]);
    assert_eq!(local.missing_secrets(&Env::new()), []);
}

#[test]
fn what_a_source_sends_is_checked_like_its_url() {
    let source = |more: &str| {
        let text = format!("[[sources]]\nname = 's'\nurl = 'http://h/'\n{more}\n");
        layers(&[], &[]).load_text("t.toml", &text).err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    let good = r#"method = 'POST'
body = '{"q": "{user_input}", "at": "{date}", "token": "{metadata.token}", "of": ["{topic}"]}'
headers.x-user = "{user_id}"
headers.x-filter = '{"a": 1}'
extract.topic = 'about (\w+)'"#;
    assert_eq!(source(good), "");
    for (more, expected) in [
        ("method = 'PUT'", "\"PUT\" is not \"GET\" or \"POST\""),
        ("body = '{}'", "is sent only with method = \"POST\""),
        ("method = 'POST'\nbody = '{\"q\": {user_input}}'", "placeholders stand in texts"),
        ("method = 'POST'\nbody = '{\"q\": \"{topic}\"}'", "sources[0].body: nothing provides {topic}"),
        ("headers.x = '{topic}'", "sources[0].headers: nothing provides {topic}"),
        ("method = 'POST'\nbody = '{\"api_key\": \"canary\"}'", "looks like a secret"),
        ("extract.topic = 'x'", "neither url, nor headers, nor body have a {topic}"),
    ] {
        let errors = source(more);
        assert!(errors.contains(expected) && !errors.contains("canary"), "{more}: {errors}");
    }
}
