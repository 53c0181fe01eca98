//! Whoever listens hears what is stored, once and in order, whatever happens to the workers.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    crashes::conversation,
    harness::{
        Cluster, Program, SOON, Settings,
        cluster::{BARE, NAMESPACE},
        eventually, python,
    },
};

/// How many workers are killed.
const KILLS: usize = 4;

#[derive(Debug, Deserialize)]
struct Heard {
    subject: String,
    sequence: u64,
    workflow: Option<String>,
}

#[tokio::test]
async fn a_plain_subscriber_hears_each_stored_event_once_and_in_order_while_workers_are_killed() {
    let Some(python) = python::with_nats() else { return };
    let settings = Settings::new("[worker]\nack_wait_ms = 1000");
    let Some(mut cluster) = Cluster::start_with(2, &settings, &["--model-latency-ms", "200"]).await else {
        return;
    };
    let mut log = cluster.log().await;
    let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
    let (ends, limit) = (workflows.len().to_string(), SOON.as_secs().to_string());
    let mut listen = python::command(&python, "listen.py");
    listen.args([cluster.nats.url().as_str(), NAMESPACE, &ends, &limit]);
    let mut listener = Program::start("listener", cluster.dir(), &mut listen);
    eventually("it listens", async || listener.stderr().contains("listening").then_some(())).await;

    cluster.publish_all(messages).await;
    for _ in 0..KILLS {
        let before = cluster.stand_ins.asked().await.1;
        eventually("the model has answered", async || {
            (cluster.stand_ins.asked().await.1 > before).then_some(())
        })
        .await;
        cluster.workers.remove(0).kill();
        cluster.add_worker();
    }
    log.until_ended(&workflows).await;
    assert!(listener.ended(SOON + Duration::from_secs(5)).await.success(), "{}", listener.stderr());
    let heard: Vec<Heard> = serde_json::from_str(&listener.stdout()).unwrap();

    let sequences: Vec<_> = heard.iter().map(|one| one.sequence).collect();
    let all: Vec<_> = (sequences[0]..).take(sequences.len()).collect();
    assert_eq!(sequences, all, "each stored event once, in the order of the log, without a gap");
    log.catch_up();
    let mut ended: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in heard.iter().filter(|one| one.subject.contains(".interaction_saved.")) {
        let session = one.subject.split('.').nth(4).unwrap();
        ended.entry(session).or_default().push(one.workflow.as_deref().unwrap());
    }
    for (session, ids) in &ended {
        let number = session.strip_prefix("session-").unwrap();
        let wanted: Vec<_> = (0..ids.len()).map(|turn| format!("s{number}-t{turn}")).collect();
        assert_eq!(*ids, wanted, "{session}: each end once, in the order of its turns");
    }
    assert_eq!(ended.values().map(Vec::len).sum::<usize>(), workflows.len());
    cluster.assert_workers_run();
}

/// Runs a command to its end: exit code, stdout, stderr.
async fn ran(cluster: &Cluster, arguments: &[&str]) -> (i32, String, String) {
    let mut program = cluster.run("ran", arguments);
    let status = program.ended(SOON).await;
    (status.code().expect("it ended by itself"), program.stdout(), program.stderr())
}

#[tokio::test]
async fn what_publish_passes_along_and_prints_and_what_events_finds_of_it() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    cluster.stand_ins.fault(json!({"target": "orders", "status": 404})).await;
    let mut publish =
        vec!["publish", "--user", "demo", "--session", "s1", "--wait", "Where is my order #W10007?"];
    publish.extend(["--workflow-id", "w1", "--metadata", "channel=web", "--metadata", r#"{"n": 1}"#]);
    let (code, out, err) = ran(&cluster, &publish).await;
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains("answered without"), "stdout is the answer: {out}");
    assert!(err.contains("answered without the data of order_details"), "{err}");
    assert!(!err.contains("waiting"), "quiet where nobody looks on: {err}");
    let (_, out, _) = ran(&cluster, &[&publish[..], &["--json"]].concat()).await;
    let end: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((&end["status"], &end["degraded"][0]), (&json!("saved"), &json!("order_details")));
    cluster.stand_ins.heal().await;

    let file = cluster.dir().join("many.jsonl");
    let line = |n| {
        format!(
            "{{\"user_id\":\"demo\",\"session_id\":\"m{n}\",\"user_input\":\"Hello\",\"workflow_id\":\"m{n}\"}}\n"
        )
    };
    std::fs::write(&file, [line(1), line(2)].concat()).unwrap();
    let (code, out, err) = ran(&cluster, &["publish", "--file", file.to_str().unwrap(), "--wait"]).await;
    assert_eq!(code, 0, "{err}");
    for n in 1..=2 {
        assert!(out.contains(&format!("line {n}: workflow m{n}\n  Hi Dana!")), "{out}");
    }
    // Published bare, without a name for its workflow.
    cluster.publish(BARE, &[], r#"{"user_id":"demo","session_id":"bare","user_input":"Hello"}"#).await;
    let inputs = eventually("its workflow has ended", async || {
        let (_, out, _) = ran(&cluster, &["events", "--session", "bare", "--json"]).await;
        (out.lines().count() == 6).then_some(out)
    })
    .await;
    let events: Vec<Value> = inputs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["subject"] == events[1]["workflowid"]), "one envelope: {inputs}");
    assert_eq!(
        (&events[0]["specversion"], &events[0]["type"]),
        (&json!("1.0"), &json!("user_input_received"))
    );

    let (code, out, err) = ran(&cluster, &["events", "--limit", "2"]).await;
    let headers: Vec<_> = out.lines().filter(|line| line.starts_with("workflow ")).collect();
    assert_eq!((code, headers.len()), (0, 2), "{out} {err}");
    assert!(headers[0].contains("session bare") && headers[1].contains("session m"), "{headers:?}");
    assert_eq!(out.matches("interaction_saved").count(), 2, "each is whole: {out}");
    assert_eq!(out.matches("user_input_received").count(), 2, "each is whole: {out}");
    let newest = ["events", "--type", "interaction_saved", "--json", "--limit", "3"];
    let (_, out, _) = ran(&cluster, &newest).await;
    let ids: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ids.len(), 3, "{out}");
    assert!(ids[0]["time"].as_str() > ids[2]["time"].as_str(), "the newest first: {out}");
    let (_, out, _) =
        ran(&cluster, &["events", "--workflow", "w1", "--type", "input_validated", "--json"]).await;
    let validated: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(validated["data"]["request"]["metadata"], json!({"channel": "web", "n": 1}));
    for unknown in ["--session", "--workflow"] {
        assert_eq!(ran(&cluster, &["events", unknown, "nobody"]).await.0, 1, "{unknown}");
    }
    assert_eq!(ran(&cluster, &["events", "--session", "s1", "--failed"]).await.0, 0, "none failed");
}
