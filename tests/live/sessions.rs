//! What becomes of sessions when one does not want to wait, and of turns when the log loses power.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use async_nats::jetstream;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{
    Cluster, Seen, Settings,
    cluster::{BARE, said},
    eventually,
    stand_ins::model,
};

/// The process that asks the model is not the one that admits, and hears of it all the same.
#[tokio::test]
async fn an_interruption_reaches_the_process_that_asks_the_model() {
    let Some(mut cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    for stages in ["input,context,external,persistence", "generation"] {
        let worker = cluster.run(stages, &["worker", "--stages", stages]);
        cluster.workers.push(worker);
    }
    cluster.stand_ins.fault(model(json!({"delay_ms": 60_000, "remaining": 1}))).await;
    cluster.say("long", "demo", "s", "Tell me everything").await;
    eventually("the model is asked", async || (cluster.stand_ins.count("model").await == 1).then_some(()))
        .await;
    let began = Instant::now();
    let mut short = cluster.run(
        "publish",
        &[
            "publish",
            "--user",
            "demo",
            "--session",
            "s",
            "--workflow-id",
            "short",
            "--wait",
            "--when-busy",
            "interrupt",
            "Stop",
        ],
    );
    assert_eq!(short.ended(Duration::from_secs(30)).await.code(), Some(0), "{}", short.stderr());
    log.until_ended(&["long", "short"]).await;
    let failed = log.failure("long");
    assert_eq!((&failed["code"], &failed["superseded_by"]), (&json!("interrupted"), &json!("short")));
    // The call is over for the worker, too: it has nothing in hand to wait for.
    let mut generation = cluster.workers.remove(1);
    generation.signal("TERM");
    let status = generation.ended(Duration::from_secs(8)).await;
    assert_eq!(status.code(), Some(0), "{}", generation.stderr());
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    assert_eq!(cluster.stand_ins.count("model").await, 2);
    cluster.assert_workers_run();
}

#[tokio::test]
async fn busy_sessions_reject_and_merge_what_asks_for_it() {
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.stand_ins.fault(model(json!({"delay_ms": 4_000, "remaining": 1}))).await;
    cluster.say("first", "demo", "s", "Hello").await;
    eventually("the model is asked", async || (cluster.stand_ins.count("model").await == 1).then_some(()))
        .await;
    let ask = |workflow: &str, when_busy: &str| {
        json!({"user_id": "demo", "session_id": "s", "workflow_id": workflow, "user_input": workflow, "when_busy": when_busy})
            .to_string()
    };
    for (workflow, when_busy) in [("no", "reject"), ("m1", "merge"), ("m2", "merge"), ("m3", "merge")] {
        cluster.publish(BARE, &[], ask(workflow, when_busy)).await;
    }
    let all = ["first", "no", "m1", "m2", "m3"];
    log.until_ended(&all).await;
    assert_eq!(log.failure("no")["code"], "session_busy");
    for merged in ["m2", "m3"] {
        let failed = log.failure(merged);
        assert_eq!((&failed["code"], &failed["superseded_by"]), (&json!("merged"), &json!("m1")));
    }
    let request = &log.event("m1", "input_validated").unwrap().data()["request"];
    assert_eq!(request["user_input"], "m1\n\nm2\n\nm3");
    assert_eq!(request["merged"], json!(["m2", "m3"]));
    let rows = cluster.rows();
    let stored: Vec<_> = rows.iter().map(|row| (&row["workflow_id"], &row["input"])).collect();
    assert!(stored.contains(&(&json!("m1"), &json!("m1\n\nm2\n\nm3"))), "{stored:?}");
    assert_eq!((rows.len(), cluster.stand_ins.count("model").await), (2, 2));
    cluster.assert_workers_run();
}

const SESSIONS: usize = 10;
const TURNS: usize = 2;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Starts the server again, and waits until it answers.
async fn revive(cluster: &mut Cluster) {
    cluster.revive_nats();
    let jetstream = jetstream::new(cluster.client.clone());
    eventually("the server answers", async || jetstream.get_stream("throughline_EVENTS").await.ok()).await;
}

/// Every turn is admitted; then the event log goes back to that state, `part` of it, while the answers were on their
/// way. Every input ends all the same, once.
async fn roll_back(part: &str) {
    let settings = Settings::new("[sessions]\nsweep_interval_ms = 1000");
    let Some(mut cluster) = Cluster::start(0, &settings).await else { return };
    let mut log = cluster.log().await;
    let stream: PathBuf = cluster.nats.dir().join("store/jetstream/$G/streams/throughline_EVENTS").join(part);
    let saved = cluster.dir().join("older");
    let ids: Vec<_> =
        (0..TURNS).flat_map(|turn| (0..SESSIONS).map(move |s| format!("s{s}-t{turn}"))).collect();
    let say = |id: &String| said(id, "demo", id.split_once('-').unwrap().0, "Hello");
    cluster.publish_all(ids.iter().map(say).collect()).await;
    let mut input = cluster.run("input", &["worker", "--stages", "input"]);
    log.until("every first turn is admitted", |log| {
        ids[..SESSIONS].iter().all(|id| log.event(id, "input_validated").is_some())
    })
    .await;
    input.kill();
    cluster.kill_nats();
    copy(&stream, &saved);
    revive(&mut cluster).await;
    let mut log = cluster.log().await;
    let mut middle = cluster.run("middle", &["worker", "--stages", "context,external,generation"]);
    log.until("every first turn has its answer", |log| {
        ids[..SESSIONS].iter().all(|id| log.event(id, "response_generated").is_some())
    })
    .await;
    middle.kill();
    cluster.kill_nats();
    std::fs::remove_dir_all(&stream).unwrap();
    copy(&saved, &stream);
    revive(&mut cluster).await;
    let began = Instant::now();
    cluster.add_worker();
    cluster.add_worker();
    let mut log = cluster.log().await;
    log.until_ended_within(Duration::from_mins(1), &ids).await;
    eprintln!("{part:?}: all ended {:?} after the server was back", began.elapsed());
    for id in &ids {
        log.answer(id);
        let kinds: Vec<_> = log.events(id).map(Seen::kind).collect();
        assert_eq!(kinds.iter().filter(|kind| *kind == "interaction_saved").count(), 1, "{kinds:?}");
    }
    assert_eq!(cluster.rows().len(), ids.len());
    // Answers that have vanished are asked for again; nothing else is.
    let calls = cluster.stand_ins.count("model").await;
    assert!(calls <= (ids.len() + SESSIONS) as u64, "{calls} model calls");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn inputs_end_although_the_log_has_gone_back_in_time() {
    roll_back("").await;
}

/// The consumers remember to have worked on what is gone.
#[tokio::test]
async fn inputs_end_although_the_log_has_lost_messages_that_consumers_remember() {
    roll_back("msgs").await;
}
