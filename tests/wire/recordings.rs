//! What was recorded with earlier versions is read, and comes out the same.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use throughline_schemas::token;

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
    let output = run(&[arguments, &["--json"]].concat(), file);
    let out = String::from_utf8(output.stdout).unwrap();
    let last = out.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    (output.status.success(), last, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run(arguments: &[&str], file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
    // Neither a configuration nor a server of whoever runs this has a say.
    command.args(["replay"]).args(arguments).arg("--file").arg(file);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("THROUGHLINE_")) {
        command.env_remove(name);
    }
    command.current_dir(file.parent().unwrap()).env("NATS_URL", "nats://127.0.0.1:1");
    command.output().unwrap()
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

/// The same recording, with another id for one of its workflows.
fn with_id(file: &Path, workflow: &str, other: &str, to: &Path) {
    let mut text = String::new();
    MultiGzDecoder::new(fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    let (text, trailer) = text.trim_end().rsplit_once('\n').unwrap();
    let named = token(other);
    let text = text
        .replace(&format!("\"{workflow}."), &format!("\"{named}."))
        .replace(&format!(".{workflow}\""), &format!(".{named}\""))
        .replace(&format!("\"{workflow}\""), &Value::from(other).to_string());
    let text = text + "\n";
    let mut trailer: Value = serde_json::from_str(trailer).unwrap();
    let digest = Sha256::digest(&text);
    trailer["trailer"]["sha256"] =
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat().into();
    let mut written = GzEncoder::new(fs::File::create(to).unwrap(), Compression::fast());
    written.write_all(format!("{text}{trailer}\n").as_bytes()).unwrap();
    written.finish().unwrap();
}

#[test]
fn an_id_acts_on_no_terminal_also_where_the_report_is_piped() {
    let changed = ["verify", "--set", "context.recent_turns=0"];
    let original = recordings().into_iter().next().unwrap();
    let out = String::from_utf8(run(&changed, &original).stdout).unwrap();
    let different = out.lines().find_map(|line| Some(line.split_once("  ")?.0.to_owned())).unwrap();
    let hostile = "w\u{1b}]0;title\u{7}\u{1b}]52;c;eA==\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hostile.jsonl.gz");
    with_id(&original, &different, hostile, &file);
    let output = run(&changed, &file);
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(text.clone()).unwrap();
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(acts), "{text:?}");
    }
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.lines().any(|line| line.starts_with(r"w\u{1b}]0;title")), "{out}");
    // For programs it is what it is.
    let output = run(&[&changed[..], &["--json"]].concat(), &file);
    let lines = String::from_utf8(output.stdout).unwrap();
    let named = |line: &str| serde_json::from_str::<Value>(line).unwrap()["workflow"] == hostile;
    assert!(lines.lines().any(named), "{lines}");
}
