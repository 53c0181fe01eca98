//! Workers that are told to stop, or stand still: what they had in hand is finished by them or taken up by others at
//! once, and by nobody twice.

use std::{collections::BTreeMap, time::Duration};

use throughline_schemas::Timestamp;
use tokio::time::Instant;

use crate::harness::{Cluster, Log, Program, SOON, Settings, cluster::said, eventually};

/// So long that whatever had to wait for it would be noticed.
const LONG_ACK_WAIT: &str = "[worker]\nack_wait_ms = 30000";
/// How much longer a workflow may take than the calls it makes, because workers are restarted under it. Far less than
/// the ack wait: nothing waits for that.
const RESTART_DELAY: Duration = Duration::from_secs(10);

/// Sends SIGTERM; how long it took to end well, and what it said last.
async fn stopped(mut worker: Program) -> (Duration, String) {
    let told = Instant::now();
    worker.signal("TERM");
    let status = worker.ended(SOON).await;
    let said = worker.stderr();
    assert_eq!(status.code(), Some(0), "{said}");
    (told.elapsed(), said.lines().last().unwrap_or_default().to_owned())
}

fn assert_one_row_each(cluster: &Cluster, workflows: &[String]) {
    let mut rows = BTreeMap::new();
    for row in cluster.rows() {
        *rows.entry(row["workflow_id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let wanted: BTreeMap<_, _> = workflows.iter().map(|workflow| (workflow.clone(), 1)).collect();
    assert_eq!(rows, wanted);
}

/// A worker with 20 calls under way.
async fn busy(cluster: &mut Cluster) -> Vec<String> {
    cluster.add_worker();
    let workflows: Vec<_> = (0..20).map(|n| format!("w{n}")).collect();
    cluster.publish_all(workflows.iter().map(|id| said(id, "demo", id, "Hello")).collect()).await;
    eventually("20 calls are under way", async || {
        (cluster.stand_ins.count("model").await >= 20).then_some(())
    })
    .await;
    workflows
}

#[tokio::test]
async fn twenty_calls_of_five_seconds_are_finished_within_the_grace_period() {
    let settings = Settings::new(LONG_ACK_WAIT);
    let latency = ["--model-latency-ms", "5000"];
    let Some(mut cluster) = Cluster::start_with(0, &settings, &latency).await else { return };
    let mut log = cluster.log().await;
    let workflows = busy(&mut cluster).await;
    let worker = cluster.workers.pop().unwrap();
    cluster.add_worker();
    let (took, last) = stopped(worker).await;
    assert!(took < Duration::from_secs(10), "the grace period: {took:?}");
    assert!(last.contains("generation 20 finished") && !last.contains("generation 20 finished, "), "{last}");
    log.until_ended(&workflows).await;
    let figures = cluster.figures(3, "SIGTERM with 20 calls of 5 s under way", 1, &log, &workflows).await;
    figures.recovered(took).show();
    assert_eq!(cluster.stand_ins.count("model").await, 20, "what was finished is not done again");
    assert_one_row_each(&cluster, &workflows);
    cluster.assert_workers_run();
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_handed_back_and_taken_up_at_once() {
    let settings = Settings::new(LONG_ACK_WAIT).with("[worker]\ndrain_grace_ms = 500");
    let latency = ["--model-latency-ms", "5000"];
    let Some(mut cluster) = Cluster::start_with(0, &settings, &latency).await else { return };
    let mut log = cluster.log().await;
    let workflows = busy(&mut cluster).await;
    let worker = cluster.workers.pop().unwrap();
    cluster.add_worker();
    cluster.workers[0].until_ready().await;
    let told = Instant::now();
    let (took, last) = stopped(worker).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(last.contains("generation 20 handed back"), "{last}");
    log.until_ended(&workflows).await;
    let delay = told.elapsed().saturating_sub(Duration::from_secs(5));
    eprintln!("stopped after {took:?}; what was handed back was done {delay:?} later than it took");
    assert!(delay < RESTART_DELAY, "{delay:?}");
    let figures = cluster.figures(3, "SIGTERM, 20 calls handed back after 0.5 s", 1, &log, &workflows).await;
    figures.recovered(delay).show();
    assert_eq!(cluster.stand_ins.count("model").await, 40, "one further call for each");
    assert_one_row_each(&cluster, &workflows);
    assert_eq!(log.dead().count(), 0);
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_second_signal_means_now() {
    let latency = ["--model-latency-ms", "5000"];
    let Some(mut cluster) = Cluster::start_with(0, &Settings::new(""), &latency).await else { return };
    let mut log = cluster.log().await;
    let workflows = busy(&mut cluster).await;
    let mut worker = cluster.workers.pop().unwrap();
    worker.signal("TERM");
    eventually("it stops", async || worker.stderr().contains("stopping").then_some(())).await;
    let told = Instant::now();
    worker.signal("INT");
    let status = worker.ended(SOON).await;
    assert_eq!(status.code(), Some(1), "{}", worker.stderr());
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    assert!(worker.stderr().contains("second SIGINT"), "{}", worker.stderr());
    cluster.add_worker();
    log.until_ended(&workflows).await;
    assert_one_row_each(&cluster, &workflows);
}

/// How long after its input was stored a workflow's end was.
fn took(log: &Log, workflow: &str) -> Duration {
    let data = log.end(workflow).unwrap().data();
    let at = |name: &str| -> Timestamp { serde_json::from_value(data[name].clone()).unwrap() };
    Duration::from_millis(at("saved_at").ms_since(at("received_at")))
}

#[tokio::test]
async fn restarting_every_worker_in_turn_under_load_loses_nothing_and_delays_little() {
    const SESSIONS: usize = 24;
    const MESSAGES: usize = 240;
    const PAUSE: Duration = Duration::from_millis(50);
    let settings = Settings::new(LONG_ACK_WAIT);
    let latency = ["--model-latency-ms", "200"];
    let Some(mut cluster) = Cluster::start_with(2, &settings, &latency).await else { return };
    let mut log = cluster.log().await;
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let workflows: Vec<_> = (0..MESSAGES).map(|n| format!("w{n}")).collect();
    let mut old: Vec<Program> = cluster.workers.drain(..).collect();
    let publishing = async {
        for (n, workflow) in workflows.iter().enumerate() {
            cluster.say(workflow, "demo", &format!("s{}", n % SESSIONS), "Hello").await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let restarting = async {
        let mut new = Vec::new();
        for n in 0..2 {
            let (took, last) = stopped(old.remove(0)).await;
            eprintln!("stopped after {took:?}: {last}");
            let worker = cluster.run(&format!("new{n}"), &["worker"]);
            worker.until_ready().await;
            new.push(worker);
        }
        new
    };
    let ((), new) = tokio::join!(publishing, restarting);
    cluster.workers = new;
    log.until_ended(&workflows).await;
    let longest = workflows.iter().map(|workflow| took(&log, workflow)).max().unwrap();
    assert!(longest < RESTART_DELAY, "{longest:?}");
    let figures =
        cluster.figures(3, "each worker restarted under load (over: slowest)", 2, &log, &workflows).await;
    figures.recovered(longest).show();
    for workflow in &workflows {
        log.answer(workflow);
    }
    for session in 0..SESSIONS {
        let ends: Vec<_> =
            (session..MESSAGES).step_by(SESSIONS).map(|n| log.end(&workflows[n]).unwrap().sequence).collect();
        assert!(ends.is_sorted(), "session {session}: {ends:?}");
    }
    assert_eq!(cluster.stand_ins.count("model").await, MESSAGES as u64, "no call was made twice");
    assert_one_row_each(&cluster, &workflows);
    assert_eq!(log.dead().count(), 0);
    cluster.assert_workers_run();
}

/// A process that stands still in the middle of a call, and wakes up with the answer when somebody else has its message.
#[tokio::test]
async fn a_woken_worker_publishes_nothing_of_what_was_taken_over() {
    let latency = ["--model-latency-ms", "4000"];
    let Some(mut cluster) = Cluster::start_with(1, &Settings::new(""), &latency).await else { return };
    let mut log = cluster.log().await;
    cluster.say("w", "demo", "s", "Hello").await;
    eventually("the model is asked", async || (cluster.stand_ins.count("model").await == 1).then_some(()))
        .await;
    cluster.workers[0].signal("STOP");
    cluster.add_worker();
    eventually("the other asks as well", async || {
        (cluster.stand_ins.count("model").await == 2).then_some(())
    })
    .await;
    cluster.workers[0].signal("CONT");
    eventually("the first notices", async || {
        cluster.workers[0].stderr().contains("another worker has taken the message over").then_some(())
    })
    .await;
    log.until_ended(&["w"]).await;
    log.answer("w");
    let generated = log.event("w", "response_generated").unwrap();
    assert!(
        generated.json()["attempt"].as_u64().unwrap() >= 2,
        "the other's: {}",
        generated.json()["attempt"]
    );
    assert_eq!(cluster.stand_ins.count("model").await, 2);
    assert_one_row_each(&cluster, &["w".to_owned()]);
    cluster.assert_workers_run();
}
