//! `config show`: every key with its value and who set it, without secrets.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::report::Entry;
use super::{Config, Origin};

/// Comments start here unless the line is longer.
const COMMENT_COLUMN: usize = 48;

/// Sections that shape an answer: a change here is a different configuration in the record of a run.
const ANSWER_SHAPING: [&str; 9] = [
    "limits",
    "context",
    "sources",
    "providers",
    "models",
    "generation",
    "routing",
    "routing.rules",
    "prompt",
];

/// Sections that do not shape an answer, but decide about attempts, waits and ends.
const OTHERWISE_DECISIVE: [&str; 4] = ["stages", "sessions", "users", "worker"];

/// Keys that may hold or name a secret, or an address.
const NOT_RECORDED: [&str; 9] =
    ["api_key", "api_keys", "base_url", "headers", "organization", "project", "proxy", "query", "url"];

impl Config {
    /// The effective configuration as TOML that can be loaded again (but for passwords in URLs, which are `***`);
    /// a comment at each key says where it came from.
    pub fn show(&self) -> String {
        let mut out = String::new();
        let mut current = None;
        for entry in &self.entries {
            if current != Some(&entry.section) {
                current = Some(&entry.section);
                let blank = if out.is_empty() { "" } else { "\n" };
                let header = match entry.section.index {
                    Some(_) => format!("[[{}]]", entry.section.name),
                    None => format!("[{}]", entry.section.name),
                };
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{blank}{header}");
            }
            let line = match &entry.value {
                Some(value) => format!("{} = {}", dotted(&entry.key), literal(value)),
                None => format!("# {} =", entry.key),
            };
            let origin = if entry.value.is_some() { entry.origin.to_string() } else { "not set".to_owned() };
            let _ = writeln!(out, "{line:<COMMENT_COLUMN$}  # {}", origin.replace(char::is_control, " "));
        }
        out
    }

    /// As [`Config::show`], for programs: `{"config": {...}, "origins": {"nats.url": "default", ...}}`. Keys
    /// without a value are null.
    pub fn show_json(&self) -> Json {
        let origins: Map<String, Json> = self
            .entries
            .iter()
            .map(|entry| (entry.full_key(), Json::from(entry.origin.to_string())))
            .collect();
        json!({ "config": self.nested(|_| true), "origins": origins })
    }

    /// Identifies the part of the configuration that shapes answers: 16 hexadecimal digits of the SHA-256 of its
    /// effective values. The bus, the database, stages, workers, logging and the values of secrets do not change it.
    pub fn id(&self) -> String {
        let shaping = |entry: &Entry| {
            ANSWER_SHAPING.contains(&entry.section.name.as_str()) && entry.key != "allow_cleartext"
        };
        // Keys are read in a fixed order, so equal configurations have equal text.
        let digest = Sha256::digest(self.nested(shaping).to_string());
        digest.iter().take(8).fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
    }

    /// What decides how a workflow goes, for a recording: `stages`, `sessions`, `users`, `worker` and what [`Config::id`] is of.
    /// Without keys, the names of secrets, headers and addresses: sources keep only the placeholders of theirs.
    pub fn decisive(&self) -> Json {
        let mut json = self.nested(|entry| {
            let name = entry.section.name.as_str();
            let section = name.split('.').next().unwrap_or_default();
            let decisive = ANSWER_SHAPING.contains(&section) || OTHERWISE_DECISIVE.contains(&section);
            let key = entry.key.split('.').next().unwrap_or_default();
            decisive
                && !(NOT_RECORDED.contains(&key)
                    || (section == "prompt" && key == "dir")
                    || key == "allow_cleartext")
        });
        for (index, source) in self.sources.iter().enumerate() {
            // Those of headers, which are not in it, too: what is extracted for them is on record.
            let filled: Vec<_> = source.placeholders().iter().map(|name| format!("{{{name}}}")).collect();
            json["sources"][index]["url"] = format!("http://source.invalid/{}", filled.join("/")).into();
        }
        json
    }

    fn nested(&self, wanted: impl Fn(&Entry) -> bool) -> Json {
        let mut root = Json::Object(Map::new());
        for entry in self.entries.iter().filter(|entry| wanted(entry)) {
            let mut place = &mut root;
            for part in entry.section.name.split('.') {
                place = &mut place[part];
            }
            if let Some(index) = entry.section.index {
                if place.is_null() {
                    *place = Json::Array(Vec::new());
                }
                if let Json::Array(items) = place {
                    items.resize(items.len().max(index + 1), Json::Null);
                }
                place = &mut place[index];
            }
            // The names in a table may have dots, the keys that hold tables have none.
            let (key, name) =
                entry.key.split_once('.').map_or((entry.key.as_str(), None), |(k, n)| (k, Some(n)));
            place = &mut place[key];
            if let Some(name) = name {
                place = &mut place[name];
            }
            *place =
                entry.value.as_ref().and_then(|value| serde_json::to_value(value).ok()).unwrap_or(Json::Null);
        }
        root
    }
}

/// On one line, so that a comment can follow.
fn literal(value: &toml::Value) -> String {
    if let toml::Value::Array(items) = value {
        let items: Vec<String> = items.iter().map(literal).collect();
        return format!("[{}]", items.join(", "));
    }
    match value.as_str() {
        // Every JSON string is a TOML string.
        Some(text) if text.contains(char::is_control) => Json::from(text).to_string(),
        _ => value.to_string(),
    }
}

fn dotted(key: &str) -> String {
    let Some((table, name)) = key.split_once('.') else { return key.to_owned() };
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { key.to_owned() } else { format!("{table}.{}", Json::from(name)) }
}

impl serde::Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
