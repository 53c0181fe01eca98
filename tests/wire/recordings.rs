//! What was recorded with earlier versions is read, and comes out the same.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

/// Everything below `tests/recordings`.
fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().is_some_and(|name| name.ends_with(".jsonl.gz")))
        .collect()
}

fn replay(arguments: &[&str], file: &Path) -> (bool, Value, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
    // Neither a configuration nor a server of whoever runs this has a say.
    command.args(["replay"]).args(arguments).arg("--file").arg(file).arg("--json");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("THROUGHLINE_")) {
        command.env_remove(name);
    }
    command.current_dir(file.parent().unwrap()).env("NATS_URL", "nats://127.0.0.1:1");
    let output = command.output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    let last = out.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    (output.status.success(), last, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn recordings_of_every_version_come_out_the_same() {
    let files = recordings();
    assert!(!files.is_empty());
    for file in files {
        let (good, last, err) = replay(&["verify"], &file);
        let sum = &last["summary"];
        assert!(good && sum["workflows"].as_u64() > Some(0), "{}: {last} {err}", file.display());
        assert_eq!(sum["identical"], sum["workflows"], "{}: {last}", file.display());
        let (good, last, err) = replay(&["simulate"], &file);
        assert!(good, "{}: {last} {err}", file.display());
        assert_eq!(last["summary"]["changed"], json!(0), "{}: {last}", file.display());
    }
}

#[test]
fn a_changed_rule_is_found_in_them() {
    let file = recordings().into_iter().next().unwrap();
    let (good, last, err) = replay(&["verify", "--set", "context.recent_turns=0"], &file);
    assert!(!good && last["summary"]["different"].as_u64() > Some(0), "{last} {err}");
}
