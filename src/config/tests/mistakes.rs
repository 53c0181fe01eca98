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
kind = "anthropic"
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
t.toml:14: sources[1].url: nothing provides {order_id}: add extract.order_id (a pattern) or defaults.order_id, or use one of {user_id}, {session_id}, {workflow_id}
t.toml:15: sources[1].extract.product_id: '(' is not a usable regular expression: unclosed group
t.toml:15: sources[1].extract.user_id: {user_id} comes from the request and cannot be taken from the text
t.toml:16: sources[1].timout_ms: unknown key; did you mean "timeout_ms"?
t.toml:17: sources[2].url: is required
t.toml:19: sources[2].base_delay_ms: base_delay_ms (5000) must not exceed max_delay_ms (1000)
t.toml:22: providers[0].kind: kind anthropic is not available in this version; use "openai"
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
