//! The layers of the configuration and their order: defaults, the file, the variables that everybody knows,
//! `THROUGHLINE_` variables, flags. A later layer wins, key by key.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Origin, Problem};
use super::suggest::did_you_mean;
use super::tree::{Node, Table, Value, parse_file};
use super::{Config, ConfigErrors, Env, wellknown};

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "throughline.toml";

/// Variables that set keys start with this.
pub const ENV_PREFIX: &str = "THROUGHLINE_";

/// A configuration file may have this many bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Arrays of tables: variables and flags address their elements by name.
const LISTS: [&[&str]; 4] = [&["sources"], &["providers"], &["models"], &["routing", "rules"]];

/// Variables with our prefix that are not configuration: those of this program, of `deploy/` and of the tests.
const NOT_CONFIGURATION: [&str; 5] = [
    "THROUGHLINE_CONFIG",
    "THROUGHLINE_CORPORA",
    "THROUGHLINE_CACHE",
    "THROUGHLINE_NATS_IMAGE",
    "THROUGHLINE_POSTGRES_IMAGE",
];
/// Variables of the tests begin with this.
const OF_TESTS: &str = "THROUGHLINE_TEST_";

/// A key set by a command line flag. Not `Debug`: the value may be a URL with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Override {
    /// As the user typed it, for messages: `--nats-url`.
    pub flag: String,
    /// The dotted key: `nats.url`, or `sources.order_history.timeout_ms` for an element of an array of tables
    /// (in its name, write every character but letters and digits as `_`).
    pub key: String,
    /// The value: a TOML value or, for a key that takes a string, just the text.
    pub value: String,
}

impl Override {
    /// The flag, the key that it sets and the value.
    pub fn new(flag: impl Into<String>, key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { flag: flag.into(), key: key.into(), value: value.into() }
    }
}

/// Everything a configuration is made from. Nothing is read from the process: the caller says what there is.
/// Not `Debug`: the environment holds secrets.
#[derive(Clone, Default)]
pub struct Layers {
    /// The file named by `--config`; it must exist. None: `throughline.toml` in `directory`, if there is one.
    pub file: Option<PathBuf>,
    /// Where `throughline.toml` is looked for; empty means the working directory.
    pub directory: PathBuf,
    /// The environment, usually [`process_env`].
    pub env: Env,
    /// Sections and their keys that count as not set, in the file and the environment.
    pub left_out: Vec<(&'static str, &'static str)>,
    /// Flags, strongest last.
    pub overrides: Vec<Override>,
}

/// The environment of this process, without what is not Unicode.
pub fn process_env() -> Env {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Layers {
    /// Reads the file, if there is one, and puts the layers together.
    ///
    /// # Errors
    /// Every mistake in every layer, at once.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        let path = self.file.clone().unwrap_or_else(|| self.directory.join(DEFAULT_FILE));
        match read_text(&path) {
            Ok(text) => self.load_text(&path.display().to_string(), &text),
            Err(FileError::Io(error)) if self.file.is_none() && error.kind() == io::ErrorKind::NotFound => {
                self.load_text(DEFAULT_FILE, "")
            }
            Err(error) => {
                let file = Arc::from(path.display().to_string());
                let place = match error {
                    FileError::NotUtf8 { line } => Origin::File { file, line },
                    FileError::Io(_) | FileError::TooLarge => Origin::whole_file(&file),
                };
                Err(ConfigErrors::new(vec![Problem {
                    place,
                    key: String::new(),
                    message: error.to_string(),
                }]))
            }
        }
    }

    /// As [`Layers::load`], with `text` as the content of the file called `file`.
    ///
    /// # Errors
    /// Every mistake in every layer, at once.
    pub fn load_text(&self, file: &str, text: &str) -> Result<Config, ConfigErrors> {
        let (mut tree, mut problems) = parse_file(text, &Arc::from(file));
        // What a broken line seems to say is not worth a second complaint.
        let broken: Vec<Origin> = problems.iter().map(|problem| problem.place.clone()).collect();
        wellknown::addresses(&mut tree, &self.env);
        wellknown::default_providers(&mut tree, &self.env);
        for (name, value) in
            self.env.iter().filter(|(name, value)| is_setting(name) && !value.trim().is_empty())
        {
            let path: Vec<String> =
                name[ENV_PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            set(&mut tree, &path, value, Origin::Env(Arc::from(name.as_str())), &mut problems);
        }
        for (section, key) in &self.left_out {
            if let Some(Value::Table(section)) = tree.get_mut(*section).map(|node| &mut node.value) {
                section.remove(*key);
            }
        }
        for Override { flag, key, value } in &self.overrides {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            set(&mut tree, &path, value, Origin::Flag(Arc::from(flag.as_str())), &mut problems);
        }
        wellknown::complete_providers(&mut tree, &self.env);
        let (mut config, found) = Config::read(tree);
        config.place_database(&self.env);
        problems.extend(found.into_iter().filter(|problem| !broken.contains(&problem.place)));
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors::new(problems)) }
    }
}

#[derive(Debug, thiserror::Error)]
enum FileError {
    // The source is part of the message: a problem is one line and keeps no chain.
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("has more than {MAX_FILE_BYTES} bytes; is it the right file?")]
    TooLarge,
    #[error("is not UTF-8")]
    NotUtf8 { line: usize },
}

fn read_text(path: &Path) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(FileError::Io)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(FileError::Io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let lines = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
        FileError::NotUtf8 { line: lines + 1 }
    })
}

/// How a name appears in a variable: `order-history` is `ORDER_HISTORY`.
pub(super) fn env_segment(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Whether a variable is meant to set a key.
fn is_setting(name: &str) -> bool {
    name.starts_with(ENV_PREFIX)
        && !NOT_CONFIGURATION.contains(&name)
        && !name.starts_with(OF_TESTS)
        && !set_by_kubernetes(name)
}

/// Kubernetes gives every container variables such as `THROUGHLINE_PORT_8080_TCP_ADDR` for a Service called
/// `throughline`: refusing them would keep workers from starting beside it.
fn set_by_kubernetes(name: &str) -> bool {
    if name.contains("__") {
        return false;
    }
    let has = |part: &str| name.contains(part);
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || has("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || (has("_PORT_") && ["_TCP", "_UDP", "_SCTP"].into_iter().any(has))
}

/// Sets the key at `path`, finding the elements of arrays of tables by their names.
fn set(tree: &mut Table, path: &[String], raw: &str, origin: Origin, problems: &mut Vec<Problem>) {
    let in_list = LISTS.iter().find(|list| {
        path.len() > list.len() && list.iter().zip(path).all(|(known, given)| same_name(known, given))
    });
    let Some(list) = in_list else { return set_in(tree, path, raw, origin) };
    let (name, field) = (&path[list.len()], &path[list.len() + 1..]);
    let elements = match find(tree, list).map(|node| &mut node.value) {
        Some(Value::Array(elements)) => elements.as_mut_slice(),
        None => &mut [],
        // Not an array: reading it will say so.
        Some(_) => return,
    };
    let names: Vec<String> = elements.iter().filter_map(element_name).collect();
    let matches = |node: &&mut Node| element_name(node).is_some_and(|found| same_name(&found, name));
    let mut matching = elements.iter_mut().filter(matches);
    let list = list.join(".");
    let message = match (matching.next(), matching.next()) {
        (Some(Node { value: Value::Table(table), .. }), None) if !field.is_empty() => {
            return set_in(table, field, raw, origin);
        }
        (Some(_), None) => "names an element but none of its keys".to_owned(),
        (Some(_), Some(_)) => format!("fits more than one of [[{list}]]: rename one of them"),
        (None, _) => {
            let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            let hint = did_you_mean(name, names.iter().map(String::as_str));
            format!("none of [[{list}]] has that name (configured: {known}){hint}")
        }
    };
    problems.push(Problem { place: origin, key: path.join("."), message });
}

fn find<'t>(table: &'t mut Table, path: &[&str]) -> Option<&'t mut Node> {
    let (first, rest) = path.split_first()?;
    let node = table.get_mut(*first)?;
    if rest.is_empty() {
        return Some(node);
    }
    if let Value::Table(inner) = &mut node.value { find(inner, rest) } else { None }
}

fn set_in(table: &mut Table, path: &[String], raw: &str, origin: Origin) {
    let Some((first, rest)) = path.split_first() else { return };
    let key = table.keys().find(|key| same_name(key, first)).unwrap_or(first).clone();
    if rest.is_empty() {
        let value = Value::from_raw(raw, &origin);
        table.insert(key, Node { value, origin });
        return;
    }
    let empty = || Node { value: Value::Table(Table::new()), origin: origin.clone() };
    // When it is not a table, reading it will say so.
    if let Value::Table(inner) = &mut table.entry(key).or_insert_with(empty).value {
        set_in(inner, rest, raw, origin);
    }
}

/// A name chosen by the user may have capitals or dashes that a variable cannot have.
fn same_name(a: &str, b: &str) -> bool {
    env_segment(a) == env_segment(b)
}

fn element_name(node: &Node) -> Option<String> {
    let Value::Table(table) = &node.value else { return None };
    let (Value::Text(name) | Value::Raw(name)) = &table.get("name")?.value else { return None };
    Some(name.clone())
}
