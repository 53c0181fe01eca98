//! What waits, what runs and what became of the rest, as an operator sees it.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Cluster, Program, SOON, Settings, eventually, process::throughline, stand_ins::model};

/// The JSON lines of a list; the newest workflow first.
async fn listed(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["list", "--json"], arguments].concat();
    let mut list = cluster.run("list", &arguments);
    assert_eq!(list.ended(SOON).await.code(), Some(0), "{}", list.stderr());
    list.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["workflow_id"].as_str().unwrap()).collect()
}

/// `qq-1` is asked of the model, which takes its time; `qq-2` waits for it.
async fn one_runs_and_one_waits(cluster: &Cluster) {
    one_runs_and_one_waits_with(cluster, json!({"delay_ms": 60_000, "remaining": 1})).await;
}

async fn one_runs_and_one_waits_with(cluster: &Cluster, slowness: Value) {
    cluster.stand_ins.fault(model(slowness)).await;
    cluster.say("qq-1", "demo", "s1", "Tell me everything").await;
    eventually("the model is asked", async || (cluster.stand_ins.count("model").await == 1).then_some(()))
        .await;
    cluster.say("qq-2", "demo", "s1", "And then?").await;
    eventually("the second one waits", async || {
        listed(cluster, &["--state", "waiting"]).await.first().cloned()
    })
    .await;
}

#[tokio::test]
async fn a_list_says_what_waits_for_whom_what_runs_and_how_the_others_ended() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.say("fine", "ann", "s0", "Hello").await;
    log.until_ended(&["fine"]).await;
    cluster.say("bad", "ann", "s0", "").await;
    log.until_ended(&["bad"]).await;
    one_runs_and_one_waits(&cluster).await;

    let all = listed(&cluster, &[]).await;
    assert_eq!(ids(&all), ["qq-2", "qq-1", "bad", "fine"]);
    let [waiting, running, failed, saved] = all.as_slice() else { panic!("{all:#?}") };
    assert_eq!((&waiting["state"], &waiting["waits_for"]), (&json!("waiting"), &json!("qq-1")));
    assert_eq!((&running["state"], &running["stage"]), (&json!("running"), &json!("generation")));
    assert!(running["stage_since"].is_string() && running["duration_ms"].is_null(), "{running}");
    assert_eq!((&failed["state"], &failed["code"]), (&json!("failed"), &json!("invalid_input")));
    assert_eq!((&saved["state"], &saved["user_id"]), (&json!("saved"), &json!("ann")));
    assert!(saved["cost_usd"].is_string() && saved["duration_ms"].is_u64(), "{saved}");

    assert_eq!(ids(&listed(&cluster, &["--state", "waiting,running"]).await), ["qq-2", "qq-1"]);
    assert_eq!(ids(&listed(&cluster, &["--user", "ann", "--limit", "1"]).await), ["bad"]);
    assert_eq!(ids(&listed(&cluster, &["--session", "s1", "--state", "running"]).await), ["qq-1"]);
    assert_eq!(ids(&listed(&cluster, &["--since", "2020-01-01T00:00:00Z"]).await).len(), 4);
    assert!(listed(&cluster, &["--since", "0s"]).await.is_empty());

    let mut table = cluster.run("table", &["list"]);
    assert_eq!(table.ended(SOON).await.code(), Some(0), "{}", table.stderr());
    let text = table.stdout();
    for said in ["waits for qq-1", "runs: generation for ", "failed: invalid_input", "saved"] {
        assert!(text.contains(said), "{said} is not in\n{text}");
    }
}

/// Without a terminal a watch writes one block after the other, and it ends when it is asked to.
#[tokio::test]
async fn a_watch_shows_changes_until_it_is_interrupted() {
    let Some(cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    cluster.workers[0].until_ready().await;
    let mut watch = cluster.run("watch", &["list", "--watch"]);
    eventually("an empty list", async || watch.stdout().contains("no workflow matches").then_some(())).await;
    one_runs_and_one_waits(&cluster).await;
    eventually("who is waited for", async || watch.stdout().contains("waits for qq-1").then_some(())).await;
    assert!(!watch.stdout().contains('\u{1b}'), "nothing for a terminal");
    watch.signal("INT");
    assert_eq!(watch.ended(SOON).await.code(), Some(0), "{}", watch.stderr());
}

/// The database tells what waits even if NATS is gone; a list makes no database, and says when it looks at a wrong one.
#[tokio::test]
async fn a_list_needs_a_database_makes_none_and_says_what_is_missing() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    one_runs_and_one_waits(&cluster).await;
    cluster.workers.clear();
    cluster.kill_nats();
    let mut list = cluster.run("without-nats", &["list"]);
    assert_eq!(list.ended(Duration::from_secs(10)).await.code(), Some(0), "{}", list.stderr());
    assert!(list.stdout().contains("waits for qq-1"), "{}", list.stdout());
    assert!(list.stderr().contains("the stages of running workflows are not shown"), "{}", list.stderr());

    let mut other = cluster.run("other", &["--namespace", "other", "list"]);
    assert_eq!(other.ended(SOON).await.code(), Some(0));
    assert!(other.stderr().contains("no worker of the namespace other has used"), "{}", other.stderr());

    let nowhere = cluster.dir().join("nowhere.db");
    let run = |database: &Path| {
        let mut command = throughline();
        command.arg("--database-url").arg(format!("sqlite://{}", database.display())).arg("list");
        Program::start("nowhere", cluster.dir(), &mut command)
    };
    let mut missing = run(&nowhere);
    assert_eq!(missing.ended(SOON).await.code(), Some(69));
    assert!(missing.stderr().contains("the file does not exist"), "{}", missing.stderr());
    assert!(!nowhere.exists(), "a list makes no database");
}

/// What waits does not look lost, wherever somebody looks for it.
#[tokio::test]
async fn events_explain_doctor_and_publish_say_why_a_turn_waits_and_for_whom() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    one_runs_and_one_waits_with(&cluster, json!({"delay_ms": 12_000, "remaining": 2})).await;
    let arguments =
        ["publish", "--wait", "--user", "demo", "--session", "s1", "--workflow-id", "qq-3", "And?"];
    let mut publish = cluster.run("publish", &arguments);
    eventually("the publisher hears it", async || {
        publish.stderr().contains("[waits for qq-1, which has run for ").then_some(())
    })
    .await;
    let why = "waits for qq-1, which has run for ";
    for arguments in [&["events", "--workflow", "qq-2"][..], &["explain", "qq-2"]] {
        let mut asked = cluster.run(arguments[0], arguments);
        assert_eq!(asked.ended(SOON).await.code(), Some(0), "{}", asked.stderr());
        let said = asked.stdout();
        assert!(said.contains("workflow qq-2  user demo  session s1"), "{said}");
        assert!(said.contains(&format!("now: {why}")) && said.contains(" and is in generation"), "{said}");
    }
    let mut events = cluster.run("events-of-the-first", &["events", "--workflow", "qq-1"]);
    assert_eq!(events.ended(SOON).await.code(), Some(0), "{}", events.stderr());
    assert!(events.stdout().contains("now: runs: generation for "), "{}", events.stdout());
    let mut doctor = cluster.run("doctor", &["doctor"]);
    doctor.ended(SOON).await;
    let said = doctor.stdout();
    assert!(said.contains("turns: 1 workflow runs, ") && said.contains(&format!(": qq-2 {why}")), "{said}");

    // It is said again when another one is waited for, and then comes its own turn.
    assert_eq!(publish.ended(SOON).await.code(), Some(0), "{}", publish.stderr());
    assert!(publish.stderr().contains("[waits for qq-2, which has run for "), "{}", publish.stderr());
    for arguments in [&["events", "--workflow", "qq-2"][..], &["explain", "qq-2"]] {
        let mut asked = cluster.run(arguments[0], arguments);
        assert_eq!(asked.ended(SOON).await.code(), Some(0), "{}", asked.stderr());
        assert!(!asked.stdout().contains("now: "), "it is over: {}", asked.stdout());
    }
    cluster.assert_workers_run();
}
