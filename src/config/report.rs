//! What reading found: the mistakes, and every key with its value and who set it.

use std::fmt;

use super::error::{Origin, Problem};
use super::layers::{ENV_PREFIX, env_segment};
use super::suggest::did_you_mean;
use super::tree::{Node, Value};

/// A key as it was read: what `config show` prints.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) section: Path,
    /// Dotted for an entry of a table, such as `defaults.product_id`.
    pub(super) key: String,
    /// Redacted; none when the key has no value and no default.
    pub(super) value: Option<toml::Value>,
    pub(super) origin: Origin,
}

impl Entry {
    pub(super) fn full_key(&self) -> String {
        self.section.key(&self.key)
    }
}

/// Which section: `nats`, `stages.input` or the second of `[[sources]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) name: String,
    /// For an element of an array of tables.
    pub(super) index: Option<usize>,
    /// As a variable addresses it: `STAGES__INPUT`, `SOURCES__ORDER_HISTORY`.
    env: String,
}

impl Path {
    pub(super) fn key(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{self}.{key}") }
    }

    /// Element `index` of `[[list]]` in this section, called `name`.
    pub(super) fn element(&self, list: &str, index: usize, name: &str) -> Self {
        let list = self.child(list);
        Self { index: Some(index), env: join_env(&list.env, name), ..list }
    }

    pub(super) fn child(&self, name: &str) -> Self {
        Self { name: self.key(name), index: None, env: join_env(&self.env, name) }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "{}[{index}]", self.name),
            None => f.write_str(&self.name),
        }
    }
}

fn join_env(prefix: &str, name: &str) -> String {
    let name = env_segment(name);
    if prefix.is_empty() { name } else { format!("{prefix}__{name}") }
}

/// What reading found: the problems and every key that exists.
#[derive(Default)]
pub(super) struct Report {
    pub(super) problems: Vec<Problem>,
    pub(super) entries: Vec<Entry>,
    /// Variables that name no key, with the key they spell.
    unknown_variables: Vec<(Origin, String)>,
}

impl Report {
    /// Notes every variable under a key that nobody knows.
    pub(super) fn unknown_variables(&mut self, node: &Node, key: &str) {
        if let Value::Table(table) = &node.value {
            for (name, child) in table {
                self.unknown_variables(child, &format!("{key}.{name}"));
            }
        } else if matches!(node.origin, Origin::Env(_)) {
            self.unknown_variables.push((node.origin.clone(), key.to_owned()));
        }
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// A mistake in a key that was read: the place is where that key was set, else its section's.
    pub(super) fn problem(&mut self, key: &str, section: &Origin, message: impl Into<String>) {
        let set_at = self.origin_of(key).filter(|origin| **origin != Origin::Default).unwrap_or(section);
        let place = set_at.clone();
        self.problems.push(Problem { place, key: key.to_owned(), message: message.into() });
    }

    /// Where a key was set, if it exists.
    pub(super) fn origin_of(&self, key: &str) -> Option<&Origin> {
        self.entries.iter().find(|entry| entry.full_key() == key).map(|entry| &entry.origin)
    }

    /// All problems; unknown variables are compared with every variable that would have been understood.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Entry>) {
        let Self { mut problems, entries, unknown_variables } = self;
        let known: Vec<String> = entries
            .iter()
            .map(|entry| {
                format!("{ENV_PREFIX}{}", join_env(&entry.section.env, &entry.key.replace('.', "__")))
            })
            .collect();
        problems.extend(unknown_variables.into_iter().map(|(place, key)| {
            let hint = did_you_mean(&place.to_string(), known.iter().map(String::as_str));
            Problem { place, key, message: format!("names no key{hint}") }
        }));
        (problems, entries)
    }
}
