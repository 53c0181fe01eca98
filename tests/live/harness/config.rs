//! Configuration files: what the stand-ins print, with what a test changes.

use toml::{Table, Value};

/// Delays that make a test fast, and bounds that make it certain.
const QUICK: &str = r#"
[nats]
max_bytes_mib = 256
[http]
listen = "127.0.0.1:0"
[worker]
ack_wait_ms = 3000
[stages.input]
base_delay_ms = 20
[stages.context]
base_delay_ms = 20
[stages.external]
base_delay_ms = 20
max_delay_ms = 200
[stages.generation]
base_delay_ms = 20
[stages.persistence]
base_delay_ms = 20
"#;

/// A configuration file in the making. Later layers win; lists of tables are merged by `name`.
#[derive(Clone)]
pub struct Settings(Table);

impl Settings {
    /// Quick delays, and what `toml` says.
    pub fn new(toml: &str) -> Self {
        Self(parse(QUICK)).with(toml)
    }

    pub fn with(mut self, toml: &str) -> Self {
        merge(&mut self.0, parse(toml));
        self
    }

    /// These settings on top of `base`.
    pub fn over(&self, base: &str) -> String {
        let mut table = parse(base);
        merge(&mut table, self.0.clone());
        toml::to_string(&table).expect("TOML")
    }
}

fn parse(toml: &str) -> Table {
    toml.parse().expect("TOML")
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => merge_named(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn merge_named(old: &mut Vec<Value>, new: Vec<Value>) {
    for value in new {
        let same = |other: &&mut Value| other.get("name").is_some() && other.get("name") == value.get("name");
        match (old.iter_mut().find(same), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => old.push(value),
        }
    }
}
