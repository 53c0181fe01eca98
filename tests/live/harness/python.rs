//! What must not share code with the product: another NATS client, another reader of the database, other servers.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{left_out, reaper};

/// The Python with nats-py that `tests/run.sh` found, else the one that `python.sh` makes. `None` is said, and is
/// an error where leaving tests out would go unnoticed.
pub fn with_nats() -> Option<PathBuf> {
    found("THROUGHLINE_TEST_PYTHON", &["python.sh"])
}

/// The Python with llmock, likewise.
pub fn with_llmock() -> Option<PathBuf> {
    found("THROUGHLINE_TEST_LLMOCK", &["python.sh", "llmock"])
}

/// llama.cpp's server, likewise.
pub fn llama_server() -> Option<PathBuf> {
    found("THROUGHLINE_TEST_LLAMA", &["llama-server.sh"])
}

fn found(variable: &str, script: &[&str]) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let made = Command::new(here().join(script[0])).args(&script[1..]).stderr(Stdio::inherit()).output();
    let path = made
        .ok()
        .filter(|made| made.status.success())
        .map(|made| PathBuf::from(String::from_utf8(made.stdout).expect("a path").trim_end()));
    if path.is_none() {
        left_out::must_run(&format!("tests/live/{} could not find or make it", script.join(" ")));
    }
    path
}

/// Every row of `interactions`, read by Python's own SQLite.
pub fn rows(database: &Path) -> Vec<Value> {
    let path = database.to_str().expect("a path");
    let rows = run(Path::new("python3"), "rows.py", &[path], "");
    rows.as_array().expect("an array").clone()
}

/// A command that runs a script of `client/`.
pub fn command(python: &Path, script: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(here().join("client").join(script));
    command
}

/// Runs a script of `client/` with `input`; what it prints is JSON.
pub fn run(python: &Path, script: &str, arguments: &[&str], input: &str) -> Value {
    let mut child = command(python, script)
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
