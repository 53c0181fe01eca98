//! Python, for what must not share code with the product: another NATS client, another reader of the database.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::reaper;

/// The Python with nats-py that `tests/run.sh` found, else the one that `python.sh` makes. `None` is said, and is
/// an error where leaving tests out would go unnoticed.
pub fn with_nats() -> Option<PathBuf> {
    if let Some(python) = std::env::var_os("THROUGHLINE_TEST_PYTHON") {
        return Some(python.into());
    }
    let made = Command::new(here().join("python.sh")).stderr(Stdio::inherit()).output();
    let path = made
        .ok()
        .filter(|made| made.status.success())
        .map(|made| PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim_end()));
    if path.is_none() {
        let why = "left out: no Python with nats-py (tests/live/python.sh makes one)";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("{why}");
    }
    path
}

/// Every row of `interactions`, read by Python's own SQLite.
pub fn rows(database: &Path) -> Vec<Value> {
    let path = database.to_str().expect("a path");
    let rows = run(Path::new("python3"), "rows.py", &[path], "");
    rows.as_array().expect("an array").clone()
}

/// Runs a script of `client/` with `input`; what it prints is JSON.
pub fn run(python: &Path, script: &str, arguments: &[&str], input: &str) -> Value {
    let mut child = Command::new(python)
        .arg(here().join("client").join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("Python starts");
    let pid = child.id();
    reaper::watch(pid);
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let done = child.wait_with_output().expect("it ends");
    reaper::forget(pid);
    assert!(done.status.success(), "{script} ended with {}", done.status);
    serde_json::from_slice(&done.stdout).expect("JSON")
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live")
}
