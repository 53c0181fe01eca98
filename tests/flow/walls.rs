//! The walls between the packages: `schemas` says, `actors` decides, only the root touches the world.
//!
//! The first two tests ask cargo what each package would be built with; the others read the sources of `actors`, for what
//! the standard library and tokio offer without any new dependency, and for what its rooms import from each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

const SCHEMAS: &str = "throughline-schemas";
const ACTORS: &str = "throughline-actors";
const ROOT: &str = "throughline";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Absent for a normal dependency, else `dev` or `build`.
    kind: Option<String>,
}

/// Package ids and the ids of their normal dependencies, as cargo resolved them for the whole workspace.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn of_this_workspace() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        // Offline: this test was built from the very crates that it asks about, so all of them are here.
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked", "--offline"])
            .arg("--filter-platform")
            .arg(host())
            .arg("--manifest-path")
            .arg(manifest)
            .output()
            .expect("cargo should start");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata =
            serde_json::from_slice(&output.stdout).expect("cargo metadata should be as documented");

        let names = metadata.packages.into_iter().map(|package| (package.id, package.name)).collect();
        let edges = metadata
            .resolve
            .nodes
            .into_iter()
            .map(|node| {
                let normal = |dependency: &Dependency| dependency.dep_kinds.iter().any(|k| k.kind.is_none());
                (node.id, node.deps.into_iter().filter(normal).map(|dependency| dependency.pkg).collect())
            })
            .collect();
        Self { names, edges }
    }

    /// Names of everything that `package` is built with, itself left out.
    fn dependencies_of(&self, package: &str) -> BTreeSet<&str> {
        let start = self.names.iter().find(|(_, name)| *name == package).map(|(id, _)| id);
        let start = start.unwrap_or_else(|| panic!("no package called {package}"));
        let mut reached = BTreeSet::new();
        let mut todo = vec![start];
        while let Some(id) = todo.pop() {
            for next in &self.edges[id] {
                if reached.insert(next) {
                    todo.push(next);
                }
            }
        }
        reached.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

/// The target triple of the compiler that built this test.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc should start");
    let text = String::from_utf8(output.stdout).expect("rustc should print UTF-8");
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc -vV should name its host").to_owned()
}

fn assert_none_of(package: &str, dependencies: &BTreeSet<&str>, forbidden: &[&str]) {
    let found: Vec<_> = forbidden.iter().filter(|name| dependencies.contains(**name)).collect();
    assert!(
        found.is_empty(),
        "{package} must not be built with {found:?}; `cargo tree -p {package} -i <name>` tells who brings it"
    );
}

#[test]
fn schemas_depend_on_no_async_or_io_crate() {
    let graph = Graph::of_this_workspace();
    let dependencies = graph.dependencies_of(SCHEMAS);
    // Were the walk broken, nothing would ever be found.
    assert!(dependencies.contains("serde"), "the walk should find serde, it found {dependencies:?}");
    assert_none_of(
        SCHEMAS,
        &dependencies,
        &["tokio", "mio", "ractor", "async-nats", "reqwest", "hyper", "axum", "sqlx", "rustls", ACTORS, ROOT],
    );
}

#[test]
fn actors_depend_on_no_nats_http_sql_or_tls_crate() {
    let graph = Graph::of_this_workspace();
    let dependencies = graph.dependencies_of(ACTORS);
    assert!(dependencies.contains("ractor") && dependencies.contains(SCHEMAS));
    assert_none_of(
        ACTORS,
        &dependencies,
        &["async-nats", "reqwest", "hyper", "axum", "sqlx", "sqlx-core", "libsqlite3-sys", "rustls", ROOT],
    );
    // The same crates are in the root, so a crate that was renamed would be noticed here.
    let root = graph.dependencies_of(ROOT);
    for name in ["async-nats", "reqwest", "hyper", "axum", "sqlx", "sqlx-core", "libsqlite3-sys", "rustls"] {
        assert!(root.contains(name), "{name} is no longer in the root: look at the lists of this file");
    }
}

/// What reaches outside or reads the wall clock without any dependency that the tests above could see. (Clippy's
/// `disallowed_methods` keeps `std::time::Instant::now` out of all three packages.)
const WORLD: [&str; 12] = [
    "SystemTime",
    "now_utc",
    "now_local",
    "now_v7",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "tokio::fs",
    "tokio::net",
    "tokio::process",
    "tokio::signal",
];

#[test]
fn actors_open_nothing_and_never_read_the_wall_clock() {
    let sources = rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/src"));
    assert!(!sources.is_empty(), "actors/src should have sources");
    // The contract suites run in tests only; one reads its seed from the environment.
    let sources = sources.into_iter().filter(|path| !path.iter().any(|part| part == "contract"));
    let mut found = Vec::new();
    for path in sources {
        let text = std::fs::read_to_string(&path).expect("a source file should be readable");
        for (index, line) in text.lines().enumerate() {
            // A comment may name what the code must not use.
            let code = line.split("//").next().unwrap_or_default();
            found.extend(
                WORLD
                    .iter()
                    .filter(|word| code.contains(**word))
                    .map(|word| format!("{}:{}: {word}", path.display(), index + 1)),
            );
        }
    }
    assert!(found.is_empty(), "actors go through the ports (clock, store, …):\n{}", found.join("\n"));
}

/// What each room of `actors` may import from. There is no way back from a room to one that uses it.
const ROOMS: [(&str, &[&str]); 10] = [
    ("replay", &["supervision", "stages", "delivery", "workflow", "model", "dependency", "policy", "ports"]),
    (
        "supervision",
        &["stages", "delivery", "retention", "workflow", "model", "dependency", "policy", "ports"],
    ),
    ("stages", &["delivery", "workflow", "model", "dependency", "policy", "ports"]),
    ("delivery", &["workflow", "dependency", "policy", "ports"]),
    ("retention", &["workflow", "policy", "ports"]),
    ("workflow", &["dependency", "policy", "ports"]),
    ("model", &["dependency", "policy", "ports"]),
    ("dependency", &["policy", "ports"]),
    ("policy", &["ports"]),
    ("ports", &["policy"]),
];
/// Files that serve all rooms.
const SHARED: [&str; 3] = ["memory_budget", "message_values", "metrics"];

#[test]
fn rooms_of_actors_do_not_import_in_circles() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("actors/src");
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for path in rust_files(&sources) {
        let inside = path.strip_prefix(&sources).expect("the walk should stay inside");
        let room = inside.iter().next().expect("a file should have a name").to_string_lossy();
        let Some((room, allowed)) = ROOMS.iter().find(|(name, _)| *name == room.trim_end_matches(".rs"))
        else {
            continue;
        };
        seen.insert(*room);
        for other in imported(&code_of(&path)) {
            if other != *room && !allowed.contains(&other.as_str()) && !SHARED.contains(&other.as_str()) {
                found.push(format!("{}: {other}", inside.display()));
            }
        }
    }
    assert_eq!(seen.len(), ROOMS.len(), "each room should have sources, found {seen:?}");
    assert!(
        found.is_empty(),
        "a room imports from one that is not among those it may use:\n{}",
        found.join("\n")
    );
}

/// What the rooms of the root crate may not use: adapters know nothing of each other, and nothing knows the command line.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    ("app", &["cli", "replay", "explain", "client"]),
    ("bus", &["cli", "config", "dead", "replay", "client", "storage", "llm", "http"]),
    ("client", &["cli", "config", "storage", "llm", "http", "replay"]),
    ("config", &["cli", "bus", "storage", "llm", "http", "app", "replay", "client"]),
    ("dead", &["cli"]),
    ("explain", &["cli"]),
    ("fetch", &["cli", "bus", "storage", "llm", "config", "client"]),
    ("http", &["cli", "bus", "storage", "llm", "config", "client"]),
    ("llm", &["cli", "bus", "storage", "sandbox", "client"]),
    ("replay", &["cli"]),
    ("sandbox", &["cli", "bus", "storage", "llm", "client"]),
    ("storage", &["cli", "bus", "config", "llm", "http", "client"]),
];
/// Who speaks NATS: the adapter, and the benchmark, which publishes as any other client would.
const NATS_ROOMS: [&str; 2] = ["bus", "bench"];

#[test]
fn rooms_of_the_root_crate_keep_to_themselves() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for path in rust_files(&sources) {
        let inside = path.strip_prefix(&sources).expect("the walk should stay inside");
        let room = inside.iter().next().expect("a file should have a name").to_string_lossy();
        let room = room.trim_end_matches(".rs");
        let code = code_of(&path);
        if code.contains("async_nats::") && !NATS_ROOMS.contains(&room) {
            found.push(format!("{}: async_nats", inside.display()));
        }
        let Some((room, forbidden)) = FORBIDDEN.iter().find(|(name, _)| *name == room) else { continue };
        seen.insert(*room);
        let imported = imported(&code);
        let broken = forbidden.iter().filter(|other| imported.contains(**other));
        found.extend(broken.map(|other| format!("{}: {other}", inside.display())));
    }
    assert_eq!(seen.len(), FORBIDDEN.len(), "each room should have sources, found {seen:?}");
    assert!(found.is_empty(), "a room uses what it may not:\n{}", found.join("\n"));
}

/// What is compiled of a file outside tests, which may build what they need out of anything.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a source file should be readable");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect()
}

/// Modules at the top of the crate that this code names, alone (`crate::a::B`) or in a list (`crate::{a::B, c}`).
fn imported(code: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        let Some(list) = after.strip_prefix('{') else {
            let name: String = after.chars().take_while(|c| is_name(*c)).collect();
            // All macros stand at the top.
            if !after[name.len()..].starts_with('!') {
                names.insert(name);
            }
            continue;
        };
        let (mut depth, mut at_start) = (0_u32, true);
        for (index, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                c if depth == 0 && at_start && is_name(c) => {
                    names.insert(list[index..].chars().take_while(|c| is_name(*c)).collect());
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder should be readable") {
        let path = entry.expect("the entry should be readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
