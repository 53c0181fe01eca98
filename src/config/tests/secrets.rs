//! Secrets: a canary that no output may contain.

use super::*;

const WITH_SECRETS: &str = r#"
[nats]
url = "nats://u:canary-7f3a@h:4222"
[database]
url = "postgres://u:canary-7f3a@h/db"
[[sources]]
name = "crm"
url = "http://u:canary-7f3a@h/{user_id}?api_key=canary-7f3a"
headers.authorization = "Bearer env:CRM_TOKEN"
headers.accept = "application/json"
[[providers]]
name = "openai"
kind = "openai"
api_key = "env:MODEL_KEY"
"#;

#[test]
fn a_database_password_from_a_file_is_put_into_the_url_and_shown_nowhere() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2/@:%\n").unwrap();
    let text =
        format!("[database]\nurl = 'postgres://ann@db/x'\npassword = 'file:{}'\n", file.path().display());
    let config = load(&text, &[]);
    let url = config.database.url_with_password(&Env::new()).unwrap();
    assert_eq!(url.expose(), "postgres://ann:hunter2%2F%40%3A%25@db/x");
    assert!(!format!("{url} {url:?} {}", config.show()).contains("hunter2"));
    for url in ["sqlite://a.db", "postgres://db/x", "postgres://ann:pw@db/x"] {
        let told = refused(&format!("[database]\nurl = '{url}'\npassword = 'env:P'\n"), &[]);
        assert!(told[0].contains("database.password: needs a postgres:// URL"), "{told:?}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let env = [("CRM_TOKEN", CANARY), ("MODEL_KEY", CANARY), ("OPENAI_API_KEY", CANARY)];
    let config = load(WITH_SECRETS, &env);
    let printed = format!("{config:?} {config:#?} {} {}", config.show(), config.show_json());
    assert!(!printed.contains(CANARY), "{printed}");
    assert!(config.show().contains("api_key = \"env:MODEL_KEY\""));
    assert!(config.show().contains("\"Bearer env:CRM_TOKEN\""));

    let env = layers(&env, &[]).env;
    let header = &config.sources[0].headers["authorization"];
    assert_eq!(header.resolve(&env).unwrap().expose(), format!("Bearer {CANARY}"));
    assert_eq!(config.missing_secrets(&env), []);
    let missing: Vec<String> = config.missing_secrets(&Env::new()).iter().map(ToString::to_string).collect();
    assert_eq!(
        missing,
        [
            "t.toml:9: sources[0].headers.authorization: the secret env:CRM_TOKEN is not set: set the environment \
             variable CRM_TOKEN",
            "t.toml:14: providers[0].api_key: the secret env:MODEL_KEY is not set: set the environment variable \
             MODEL_KEY",
        ]
    );
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_and_not_repeated() {
    let file = format!(
        r#"
[nats]
url = "nats://u:{CANARY}@h:99999"
token = "{CANARY}"
max_age_hours = "{CANARY}"
[[sources]]
name = "crm"
url = "http://u:{CANARY}@h:x/"
headers.x-api-key = "{CANARY}"
[[providers]]
name = "openai"
kind = "openai"
base_url = "ftp://u:{CANARY}@h"
api_key = "{CANARY}"
[log]
filter = {CANARY}
"#
    );
    let env = [("DATABASE_URL", "mysql://u:canary-7f3a@h/db"), ("THROUGHLINE_NATS__PASSWORD", CANARY)];
    let told = refused(&file, &env);
    assert_eq!(told.len(), 10, "{told:#?}");
    assert!(!told.join("\n").contains(CANARY), "{told:#?}");
}
