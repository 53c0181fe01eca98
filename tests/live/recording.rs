//! `throughline record` and what reads its files.

use std::{io::Read as _, path::Path};

use serde_json::Value;

use crate::harness::{Cluster, SOON, Settings, cluster::BARE, stand_ins};

const CANARY: &str = "sk-canary-7f3a";
const WITH_KEY: &str = "[[providers]]\nname = \"sandbox\"\napi_key = \"env:CANARY\"\n";

/// Runs `throughline`; its exit code, stdout and stderr.
async fn run(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let mut program = cluster.run("record", arguments);
    let status = program.ended(SOON).await;
    (status.code().expect("an exit code"), program.stdout(), program.stderr())
}

async fn done(cluster: &Cluster, arguments: &[&str]) -> String {
    let (code, out, err) = run(cluster, arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

fn unzipped(file: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(file).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// What `events --json` says of all workflows, without what differs between namespaces, in the recorded order.
async fn story(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let out = done(cluster, &["events", "--json", "--namespace", namespace]).await;
    let mut lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["sequence"].as_u64());
    lines.iter().map(|line| line.to_string().replace(&format!("\"{namespace}.v1."), "\"NS.v1.")).collect()
}

/// Calls of the model and of the sources so far.
async fn calls(cluster: &Cluster) -> Value {
    cluster.stand_ins.ledger().await
}

#[tokio::test]
async fn a_recording_is_exported_shown_imported_and_verified() {
    let Some(mut cluster) = Cluster::start(0, &Settings::new(WITH_KEY)).await else { return };
    cluster.add_worker_with(&[("CANARY", CANARY)]);
    let mut log = cluster.log().await;
    let ids = ["w1", "w2", "w3", "large"];
    cluster.say("w1", "demo", "s", "What about my refund?").await;
    cluster.say("w2", "demo", "s", "And order 1001?").await;
    log.until_ended(&ids[..2]).await;
    cluster.stand_ins.fault(stand_ins::model(serde_json::json!({"status": 400}))).await;
    cluster.say("w3", "demo", "t", "This one fails").await;
    log.until_ended(&["w3"]).await;
    cluster.stand_ins.heal().await;
    // Its events are too large for messages.
    cluster.say("large", "demo", "u", &"words ".repeat(4_000)).await;
    log.until_ended(&ids).await;
    // The id of an input that names none follows from its subject and sequence.
    let nameless = br#"{"user_id":"demo","session_id":"v","user_input":"Hello"}"#;
    cluster.publish(BARE, &[], nameless.to_vec()).await;
    log.until("five ends", |log| {
        log.all.iter().filter(|seen| seen.kind() == "interaction_saved").count() == 4
    })
    .await;
    let before = calls(&cluster).await;

    let file = cluster.dir().join("all.jsonl.gz");
    let path = file.to_str().unwrap();
    let said = done(&cluster, &["record", "export", path]).await;
    assert!(said.contains("5 workflows"), "{said}");
    let (code, _, err) = run(&cluster, &["record", "export", path]).await;
    assert!(code == 2 && err.contains("--force"), "{err}");
    done(&cluster, &["record", "export", path, "--force"]).await;
    let text = unzipped(&file);
    assert!(text.contains("What about my refund?"));
    for secret in [CANARY, "CANARY", "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret} is in the recording");
    }

    let shown: Value =
        serde_json::from_str(&done(&cluster, &["record", "show", path, "--json"]).await).unwrap();
    assert_eq!((&shown["trailer"]["workflows"], &shown["error"]), (&5.into(), &Value::Null));
    assert_eq!(shown["header"]["namespace"], "throughline");
    assert!(done(&cluster, &["record", "show", path]).await.contains("as it should be"));

    // Neither needs NATS.
    let away = ["--nats-url", "nats://127.0.0.1:1"];
    let verified = done(&cluster, &[&["replay", "verify", "--file", path], &away[..]].concat()).await;
    assert!(verified.contains("5 identical, 0 different"), "{verified}");
    let verified = done(&cluster, &[&["replay", "verify", "--file", path, "w1"], &away[..]].concat()).await;
    assert!(verified.contains("1 identical, 0 different"), "{verified}");
    done(&cluster, &[&["replay", "simulate", "--file", path], &away[..]].concat()).await;

    // Not where workers work.
    let (code, _, err) = run(&cluster, &["record", "import", path]).await;
    assert!(code == 2 && err.contains("set up for workers"), "{err}");
    let imported = done(&cluster, &["record", "import", path, "--namespace", "copy"]).await;
    assert!(imported.contains(", 0 were there already"), "{imported}");
    let again = done(&cluster, &["record", "import", path, "--namespace", "copy"]).await;
    assert!(again.starts_with("0 messages imported"), "{again}");
    assert_eq!(story(&cluster, "copy").await.len(), text.lines().count() - 2);
    let (code, _, err) = run(&cluster, &["setup", "--namespace", "copy"]).await;
    assert!(code != 0 && err.contains("imported recordings"), "{err}");
    let verified = done(&cluster, &["replay", "verify", "--namespace", "copy"]).await;
    assert!(verified.contains("5 identical, 0 different"), "{verified}");
    assert_eq!(calls(&cluster).await, before, "nothing is called");

    let redacted = cluster.dir().join("redacted.jsonl.gz");
    let path = redacted.to_str().unwrap();
    done(&cluster, &["record", "export", path, "--redact", "all"]).await;
    let text = unzipped(&redacted);
    for line in text.lines().skip(1) {
        for said in ["my refund", "order 1001", "This one fails", "words words"] {
            assert!(!line.contains(said), "{said}: {}", &line[..line.len().min(3_000)]);
        }
    }
    let (code, _, err) = run(&cluster, &["replay", "verify", "--file", path]).await;
    assert!(code == 1 && err.contains("is redacted"), "{err}");
    done(&cluster, &["record", "import", path, "--namespace", "redacted"]).await;

    // What was changed is refused before anything of it is there.
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();
    let path = file.to_str().unwrap();
    for arguments in [&["record", "show", path][..], &["record", "import", path, "--namespace", "broken"]] {
        let (code, _, err) = run(&cluster, arguments).await;
        assert!(code == 1 && err.contains("line "), "{arguments:?}: {err}");
    }
    cluster.assert_workers_run();
}
