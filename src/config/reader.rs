//! Reads the merged tree section by section: fields are taken one by one, each mistake is noted and reading
//! goes on with the default, and what nobody asked for at the end is an unknown key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{Origin, Problem};
use super::field::Field;
use super::report::{Entry, Path, Report};
use super::suggest::did_you_mean;
use super::tree::{Node, Table, Value};

/// One table being read.
pub(super) struct Section<'r> {
    report: &'r mut Report,
    table: Table,
    path: Path,
    origin: Origin,
    asked: Vec<&'static str>,
}

impl<'r> Section<'r> {
    /// Reads the whole tree.
    pub(super) fn root<T>(
        report: &'r mut Report,
        table: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut root =
            Section { report, table, path: Path::default(), origin: Origin::Default, asked: vec![] };
        let value = read(&mut root);
        root.finish();
        value
    }

    /// Reads `[key]`; an absent one reads as empty.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let node = self.take(key);
        let origin = node.as_ref().map_or_else(|| self.origin.clone(), |node| node.origin.clone());
        let table = match node.map(|node| node.value) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.problem(key, format!("expected a table, found {}", other.kind()), Some(origin.clone()));
                Table::new()
            }
        };
        let path = self.path.child(key);
        self.read_child(path, origin, table, read)
    }

    /// Reads every `[[key]]`. Each element comes back with where it starts.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> Vec<(Origin, T)> {
        let Some(Node { value, origin }) = self.take(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            let message = format!("expected an array of tables, [[{key}]], found {}", value.kind());
            self.problem(key, message, Some(origin));
            return Vec::new();
        };
        let mut elements = Vec::with_capacity(items.len());
        for (index, Node { value, origin }) in items.into_iter().enumerate() {
            let Value::Table(table) = value else {
                let message = format!("expected a table, found {}", value.kind());
                self.problem(&format!("{key}[{index}]"), message, Some(origin));
                continue;
            };
            let name = match table.get("name").map(|node| &node.value) {
                Some(Value::Text(name) | Value::Raw(name)) => name.as_str(),
                _ => "",
            };
            let path = self.path.element(key, index, name);
            elements.push((origin.clone(), self.read_child(path, origin, table, &mut read)));
        }
        elements
    }

    fn read_child<T>(
        &mut self,
        path: Path,
        origin: Origin,
        table: Table,
        read: impl FnOnce(&mut Section<'_>) -> T,
    ) -> T {
        let mut child = Section { report: &mut *self.report, table, path, origin, asked: vec![] };
        let value = read(&mut child);
        child.finish();
        value
    }

    /// The key, or `default` when it is not set.
    pub(super) fn or<T: Field>(&mut self, key: &'static str, default: T) -> T {
        self.or_where(key, default, |_| Ok(()))
    }

    /// As [`Section::or`], for values that pass `check`.
    pub(super) fn or_where<T: Field>(
        &mut self,
        key: &'static str,
        default: T,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> T {
        let (found, origin) = self.read(key, check);
        let value = found.unwrap_or(default);
        self.entry(key, Some(value.shown()), origin);
        value
    }

    /// As [`Section::or`], for numbers within `range`.
    pub(super) fn within<T: Field + PartialOrd + fmt::Display>(
        &mut self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        self.or_where(key, default, |value| {
            if range.contains(value) {
                Ok(())
            } else {
                Err(format!("{value} is out of range; allowed are {} to {}", range.start(), range.end()))
            }
        })
    }

    /// A duration in milliseconds.
    pub(super) fn millis(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<u64>,
    ) -> Duration {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.within(key, default, range))
    }

    /// The key, if it is set.
    pub(super) fn optional<T: Field>(&mut self, key: &'static str) -> Option<T> {
        self.optional_where(key, |_| Ok(()))
    }

    /// As [`Section::optional`], for values that pass `check`.
    pub(super) fn optional_where<T: Field>(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> Option<T> {
        let (found, origin) = self.read(key, check);
        self.entry(key, found.as_ref().map(T::shown), origin);
        found
    }

    /// The key, which must be set.
    pub(super) fn required<T: Field>(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.problem(key, "is required", None);
        }
        self.optional_where(key, check)
    }

    /// A table of values under names that the user chooses.
    pub(super) fn map<T: Field>(
        &mut self,
        key: &'static str,
        check: impl Fn(&str, &T) -> Result<(), String>,
    ) -> BTreeMap<String, T> {
        let node = self.take(key);
        let mut map = BTreeMap::new();
        let items = match node {
            None => Table::new(),
            Some(Node { value: Value::Table(items), .. }) => items,
            Some(Node { value, origin }) => {
                self.problem(key, format!("expected a table, found {}", value.kind()), Some(origin));
                Table::new()
            }
        };
        if items.is_empty() {
            self.entry(key, Some(toml::Value::Table(toml::Table::new())), Origin::Default);
        }
        for (name, Node { value, origin }) in items {
            let dotted = format!("{key}.{name}");
            match T::read(&value).and_then(|value| check(&name, &value).map(|()| value)) {
                Ok(value) => {
                    self.entry(&dotted, Some(value.shown_under(&name)), origin);
                    map.insert(name, value);
                }
                Err(message) => self.problem(&dotted, message, Some(origin)),
            }
        }
        map
    }

    /// A mistake that only shows when several keys are seen together; placed where `key` was set.
    pub(super) fn conflict(&mut self, key: &str, message: impl Into<String>) {
        let full_key = self.path.key(key);
        self.report.problem(&full_key, &self.origin, message);
    }

    /// Whether the user wrote this key, right or wrong.
    pub(super) fn was_written(&self, key: &str) -> bool {
        let key = self.path.key(key);
        self.report.origin_of(&key).is_some_and(|origin| *origin != Origin::Default)
            || self.report.problems.iter().any(|problem| problem.key == key)
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        self.table.remove(key)
    }

    fn read<T: Field>(
        &mut self,
        key: &'static str,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> (Option<T>, Origin) {
        let Some(Node { value, origin }) = self.take(key) else { return (None, Origin::Default) };
        match T::read(&value).and_then(|value| check(&value).map(|()| value)) {
            Ok(value) => (Some(value), origin),
            Err(message) => {
                self.problem(key, message, Some(origin.clone()));
                (None, origin)
            }
        }
    }

    fn entry(&mut self, key: &str, value: Option<toml::Value>, origin: Origin) {
        let section = self.path.clone();
        self.report.entries.push(Entry { section, key: key.to_owned(), value, origin });
    }

    fn problem(&mut self, key: &str, message: impl Into<String>, place: Option<Origin>) {
        let place = place.unwrap_or_else(|| self.origin.clone());
        self.report.add(Problem { place, key: self.path.key(key), message: message.into() });
    }

    fn finish(mut self) {
        for (key, node) in std::mem::take(&mut self.table) {
            if !matches!(node.origin, Origin::Env(_)) {
                let hint = did_you_mean(&key, self.asked.iter().copied());
                self.problem(&key, format!("unknown key{hint}"), Some(node.origin.clone()));
            }
            let full_key = self.path.key(&key);
            self.report.unknown_variables(&node, &full_key);
        }
    }
}
