//! Processes are killed in the middle of their work, and nothing that was accepted is lost.

use std::{
    collections::BTreeMap,
    io::BufRead,
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::jetstream::{self, consumer::PullConsumer};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::{
    Cluster, Log, SOON, Settings,
    cluster::{BARE, said},
    eventually, reaper,
};

const SESSIONS: usize = 10;
const TURNS: usize = 5;
/// Longer than the acknowledgement wait (3 s, see `Settings`) and the time after which a silent worker that admits
/// is replaced (5 s).
const PAUSE: Duration = Duration::from_secs(7);

fn workflow(session: usize, turn: usize) -> String {
    format!("s{session}-t{turn}")
}

/// The turns of a conversation: sessions × turns, turn by turn.
pub(crate) fn conversation() -> Vec<(String, async_nats::jetstream::message::OutboundMessage)> {
    let turns = (0..TURNS).flat_map(|turn| (0..SESSIONS).map(move |session| (session, turn)));
    turns
        .map(|(session, turn)| {
            let id = workflow(session, turn);
            let message = said(&id, "demo", &format!("session-{session}"), &format!("Question {turn}"));
            (id, message)
        })
        .collect()
}

/// One turn of a session begins only after the one before it has ended, and each begins and ends once.
pub(crate) fn assert_ordered(log: &Log) {
    for session in 0..SESSIONS {
        let mut ended = 0;
        for turn in 0..TURNS {
            let id = workflow(session, turn);
            let kinds: Vec<_> = log.events(&id).map(crate::harness::Seen::kind).collect();
            assert_eq!(
                kinds,
                [
                    "input_validated",
                    "context_retrieved",
                    "external_data_fetched",
                    "response_generated",
                    "interaction_saved"
                ],
                "{id}"
            );
            let sequences: Vec<_> = log.events(&id).map(|seen| seen.sequence).collect();
            assert!(sequences[0] > ended, "{id} began before the turn before it had ended");
            ended = sequences[4];
            let turns = &log.event(&id, "context_retrieved").unwrap().data()["context"]["recent_turns"];
            let known: Vec<_> = turns
                .as_array()
                .unwrap()
                .iter()
                .map(|turn| turn["workflow_id"].as_str().unwrap().to_owned())
                .collect();
            let before: Vec<_> = (0..turn).map(|turn| workflow(session, turn)).collect();
            assert_eq!(known, before, "{id} knows the turns before it");
        }
    }
}

fn assert_one_row_each(cluster: &Cluster, workflows: &[String]) {
    let mut rows = BTreeMap::new();
    for row in cluster.rows() {
        *rows.entry(row["workflow_id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    let wanted: BTreeMap<_, _> = workflows.iter().map(|workflow| (workflow.clone(), 1)).collect();
    assert_eq!(rows, wanted);
}

#[tokio::test]
async fn a_killed_worker_s_work_is_finished_by_another_in_order() {
    let settings = Settings::new("");
    let Some(mut cluster) = Cluster::start_with(2, &settings, &["--model-latency-ms", "500"]).await else {
        return;
    };
    let mut log = cluster.log().await;
    let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
    cluster.publish_all(messages).await;
    // Both have taken work by the time that as many calls are under way as there are sessions.
    eventually("calls are under way", async || {
        (cluster.stand_ins.count("model").await >= SESSIONS as u64).then_some(())
    })
    .await;
    cluster.workers.remove(0).kill();
    let killed = Instant::now();
    log.until_ended(&workflows).await;
    let figures =
        cluster.figures(1, "one of two workers killed in its model calls", 1, &log, &workflows).await;
    figures.recovered(killed.elapsed()).show();
    assert_ordered(&log);
    assert_one_row_each(&cluster, &workflows);
    // What the killed worker had in hand is asked again, and nothing else is.
    let calls = cluster.stand_ins.count("model").await;
    let most = workflows.len() + SESSIONS;
    assert!((workflows.len() as u64..=most as u64).contains(&calls), "{calls} model calls");
    cluster.assert_workers_run();
}

/// The most expensive moment to die in: the model has answered, and nobody but the worker knows.
#[tokio::test]
async fn dying_between_the_answer_and_its_event_costs_one_more_call_at_most() {
    const KILLS: usize = 5;
    const AT_ONCE: usize = 4;
    let settings = Settings::new("[worker]\nack_wait_ms = 1000");
    let Some(mut cluster) = Cluster::start_with(1, &settings, &["--model-latency-ms", "300"]).await else {
        return;
    };
    let mut log = cluster.log().await;
    let (mut all, mut slowest) = (Vec::new(), Duration::ZERO);
    for kill in 0..KILLS {
        let ids: Vec<_> = (0..AT_ONCE).map(|n| format!("k{kill}-{n}")).collect();
        let before = cluster.stand_ins.asked().await.1;
        cluster.publish_all(ids.iter().map(|id| said(id, "demo", id, id)).collect()).await;
        eventually("the model has answered", async || {
            (cluster.stand_ins.asked().await.1 > before).then_some(())
        })
        .await;
        cluster.workers.remove(0).kill();
        let killed = Instant::now();
        cluster.add_worker();
        log.until_ended(&ids).await;
        slowest = slowest.max(killed.elapsed());
        all.extend(ids);
    }
    let fault = "killed between the model's answer and its event";
    cluster.figures(2, fault, KILLS, &log, &all).await.recovered(slowest).show();
    assert_one_row_each(&cluster, &all);
    let ledger = cluster.stand_ins.ledger().await;
    let prompts: Vec<_> =
        ledger["model"].as_array().unwrap().iter().map(|call| call["prompt"].to_string()).collect();
    for id in &all {
        let calls = prompts.iter().filter(|prompt| prompt.contains(id)).count();
        assert!((1..=2).contains(&calls), "{id} was asked {calls} times for one kill");
    }
    cluster.assert_workers_run();
}

#[tokio::test]
async fn killing_the_worker_that_admits_lets_another_take_over() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.say("before", "demo", "s", "Hello").await;
    log.until_ended(&["before"]).await;
    // The only one so far admits; the second stands by.
    cluster.add_worker();
    cluster.workers.remove(0).kill();
    cluster.say("after", "demo", "s", "Hello again").await;
    log.until_ended(&["after"]).await;
    log.answer("after");
    cluster.assert_workers_run();
}

/// What the killed process had not admitted comes again after the ack wait, which is a minute here; what is newer comes
/// at once. Nobody waits for that minute, and no session loses its order.
#[tokio::test]
async fn killing_the_worker_that_admits_under_load_keeps_every_session_in_order() {
    let settings = Settings::new("[worker]\nack_wait_ms = 60000");
    let Some(mut cluster) = Cluster::start(1, &settings).await else { return };
    let mut log = cluster.log().await;
    let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
    let mut messages = messages.into_iter();
    let mut next_turn = || messages.by_ref().take(SESSIONS).collect::<Vec<_>>();
    cluster.publish_all(next_turn()).await;
    let mut slowest = Duration::ZERO;
    for n in [1, 3] {
        log.until_ended(&workflows[..n * SESSIONS]).await;
        cluster.add_worker();
        // It is given the inputs of a turn and cannot admit them.
        let holder = Holder::of(&cluster);
        cluster.publish_all(next_turn()).await;
        let inputs = jetstream::new(cluster.client.clone());
        let mut inputs: PullConsumer =
            inputs.get_consumer_from_stream("stage_input", "throughline_EVENTS").await.unwrap();
        eventually("the inputs are in its hands", async || {
            let info = inputs.info().await.ok()?;
            (info.num_pending == 0 && info.num_ack_pending >= SESSIONS).then_some(())
        })
        .await;
        cluster.workers.remove(0).kill();
        let killed = Instant::now();
        holder.release();
        cluster.publish_all(next_turn()).await;
        log.until_ended(&workflows[..(n + 2) * SESSIONS]).await;
        slowest = slowest.max(killed.elapsed());
    }
    assert_ordered(&log);
    assert_one_row_each(&cluster, &workflows);
    assert_eq!(cluster.stand_ins.count("model").await, workflows.len() as u64, "nothing was asked twice");
    assert!(slowest < Duration::from_secs(20), "a takeover took {slowest:?}");
    let figures =
        cluster.figures(1, "the worker that admits killed with inputs in hand", 2, &log, &workflows).await;
    figures.recovered(slowest).show();
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_stopped_worker_finishes_what_it_has_and_nothing_is_done_twice() {
    let settings = Settings::new("");
    let Some(mut cluster) = Cluster::start_with(2, &settings, &["--model-latency-ms", "700"]).await else {
        return;
    };
    let mut log = cluster.log().await;
    let workflows: Vec<_> = (0..20).map(|n| format!("w{n}")).collect();
    cluster.publish_all(workflows.iter().map(|id| said(id, "demo", id, "Hello")).collect()).await;
    eventually("calls are under way", async || (cluster.stand_ins.count("model").await >= 20).then_some(()))
        .await;
    let mut stopped = cluster.workers.remove(0);
    stopped.signal("TERM");
    let status = stopped.ended(Duration::from_secs(12)).await;
    assert_eq!(status.code(), Some(0), "{}", stopped.stderr());
    log.until_ended(&workflows).await;
    assert_one_row_each(&cluster, &workflows);
    assert_eq!(cluster.stand_ins.count("model").await, 20, "no call was made twice");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn acknowledged_input_survives_a_crash_of_nats() {
    let settings = Settings::new("");
    let Some(mut cluster) = Cluster::start_with(2, &settings, &["--model-latency-ms", "100"]).await else {
        return;
    };
    let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
    let mut messages = messages.into_iter();
    let crash_at = messages.len() / 2;
    cluster.publish_all(messages.by_ref().take(crash_at).collect()).await;
    eventually("calls are under way", async || (cluster.stand_ins.count("model").await > 0).then_some(()))
        .await;
    // Who cannot begin ends with a code that says so, and is started again by whoever runs it; here nobody would.
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    cluster.crash_nats();
    let crashed = Instant::now();
    // A publisher that gets no acknowledgement publishes again; the workflow id makes it one workflow.
    let jetstream = async_nats::jetstream::new(cluster.client.clone());
    let deadline = Instant::now() + SOON;
    for message in messages {
        loop {
            let sent = jetstream.publish(BARE, message.payload.clone()).await;
            if let Ok(ack) = sent
                && ack.await.is_ok()
            {
                break;
            }
            assert!(Instant::now() < deadline, "nothing can be published");
        }
    }
    let mut log = cluster.log().await;
    log.until_ended(&workflows).await;
    let figures =
        cluster.figures(4, "nats-server killed while messages are published", 1, &log, &workflows).await;
    figures.recovered(crashed.elapsed()).show();
    assert_ordered(&log);
    assert_one_row_each(&cluster, &workflows);
    assert_eq!(log.dead().count(), 0);
    cluster.assert_workers_run();
}

/// A process that stands still is the worst: it comes back and believes that it still has its work.
#[tokio::test]
async fn a_worker_that_was_paused_does_nothing_twice_when_it_wakes() {
    let settings = Settings::new("");
    let latency = ["--model-latency-ms", "200"];
    let Some(mut cluster) = Cluster::start_with(2, &settings, &latency).await else { return };
    let mut log = cluster.log().await;
    let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
    cluster.publish_all(messages).await;
    eventually("calls are under way", async || {
        (cluster.stand_ins.count("model").await >= SESSIONS as u64).then_some(())
    })
    .await;
    cluster.workers[0].signal("STOP");
    // Long enough for its deliveries to be given to the other, and for the other to admit in its place.
    tokio::time::sleep(PAUSE).await;
    cluster.workers[0].signal("CONT");
    log.until_ended(&workflows).await;
    // What it held is settled before it can stop.
    let mut woken = cluster.workers.remove(0);
    woken.signal("TERM");
    let status = woken.ended(Duration::from_secs(12)).await;
    assert_eq!(status.code(), Some(0), "{}", woken.stderr());
    cluster.say("last", "demo", "other", "Hello").await;
    log.until_ended(&["last"]).await;
    assert_ordered(&log);
    assert_one_row_each(&cluster, &[workflows, vec!["last".to_owned()]].concat());
    assert_eq!(log.dead().count(), 0);
    cluster.assert_workers_run();
}

/// Another program that holds the write lock of the database.
struct Holder(Child);

impl Holder {
    fn of(cluster: &Cluster) -> Self {
        let mut holder = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/client/hold.py"))
            .arg(cluster.database())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        reaper::watch(holder.id());
        let mut line = String::new();
        std::io::BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "held");
        Self(holder)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
        reaper::forget(self.0.id());
    }
}

/// Somebody with the database open in another program must not cost anybody an answer.
#[tokio::test]
async fn a_locked_database_is_waited_for() {
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    cluster.say("before", "demo", "s", "Hello").await;
    log.until_ended(&["before"]).await;
    let holder = Holder::of(&cluster);
    let workflows: Vec<_> = (0..20).map(|n| format!("w{n}")).collect();
    cluster.publish_all(workflows.iter().map(|id| said(id, "demo", id, "Hello")).collect()).await;
    // Longer than SQLite's own patience, which is five seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    holder.release();
    let released = Instant::now();
    log.until_ended(&workflows).await;
    let all = [vec!["before".to_owned()], workflows].concat();
    let figures = cluster.figures(11, "SQLite locked by another program for 6 s", 1, &log, &all).await;
    figures.recovered(released.elapsed()).show();
    for workflow in &all {
        log.answer(workflow);
    }
    assert_one_row_each(&cluster, &all);
    assert_eq!(cluster.stand_ins.count("model").await, all.len() as u64);
    cluster.assert_workers_run();
}

/// Every stage may have processes of its own.
#[tokio::test]
async fn stages_may_be_spread_over_processes() {
    let Some(mut cluster) = Cluster::start(0, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    for stages in ["input,persistence", "context", "external", "generation"] {
        let worker = cluster.run(stages, &["worker", "--stages", stages]);
        cluster.workers.push(worker);
    }
    let (workflows, messages): (Vec<_>, Vec<_>) = conversation().into_iter().unzip();
    cluster.publish_all(messages).await;
    log.until_ended(&workflows).await;
    assert_ordered(&log);
    assert_one_row_each(&cluster, &workflows);
    cluster.assert_workers_run();
}

/// The same workflow id published again and again, at once and later, in every form, runs once.
#[tokio::test]
async fn a_workflow_id_runs_once() {
    const PUBLISHED: usize = 40;
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    let mut log = cluster.log().await;
    let mut heard = cluster.client.subscribe("throughline.v1.input_validated.>").await.unwrap();
    cluster.publish_all((0..PUBLISHED - 10).map(|_| said("once", "demo", "s", "Hello")).collect()).await;
    log.until_ended(&["once"]).await;
    // Another text does not make it another workflow: it is refused under an id of its own.
    cluster.publish_all((0..10).map(|_| said("once", "demo", "s", "Hi")).collect()).await;
    cluster.say("last-s", "demo", "s", "Bye").await;
    cluster.say("last-t", "alice", "t", "Bye").await;
    log.until_ended(&["last-s", "last-t"]).await;
    assert_eq!(log.events("once").count(), 5);
    let ids = ["once", "last-s", "last-t"].map(str::to_owned);
    let faults = PUBLISHED - 1;
    cluster
        .figures(21, "one workflow id published again, without a message id", faults, &log, &ids)
        .await
        .show();
    assert_one_row_each(&cluster, &["once".to_owned(), "last-s".to_owned(), "last-t".to_owned()]);
    assert_eq!(cluster.stand_ins.count("model").await, 3);
    for _ in 0..3 {
        let event = tokio::time::timeout(SOON, heard.next()).await.unwrap().unwrap();
        let event: serde_json::Value = serde_json::from_slice(&event.payload).unwrap();
        assert_ne!(event["data"]["request"]["user_input"], json!("Hi"));
    }
    cluster.assert_workers_run();
}
