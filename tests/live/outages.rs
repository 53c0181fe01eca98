//! What the engine stands on goes away for a while: a stage's only process, the NATS server, room on a disk.

use std::{fs, time::Duration};

use async_nats::jetstream;
use tokio::time::Instant;

use crate::harness::{
    Cluster, Log, Program, SOON, Settings,
    cluster::{Parts, said},
    disk::Disk,
    eventually,
};

const STAGES: [&str; 5] = ["input", "context", "external", "generation", "persistence"];
/// Far more than anything here needs; the streams reserve it.
const NATS_DISK_MIB: usize = 256;
const DATABASE_DISK_MIB: usize = 16;

fn workflows(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Eight sessions, each of which gets every eighth workflow.
fn messages(ids: &[String]) -> Vec<jetstream::message::OutboundMessage> {
    let session = |n: usize| format!("session-{}", n % 8);
    ids.iter().enumerate().map(|(n, id)| said(id, "demo", &session(n), "Hello")).collect()
}

/// Each has one end, a good one, and one row.
fn assert_all_saved_once(cluster: &Cluster, log: &Log, ids: &[String]) {
    for id in ids {
        log.answer(id);
        let ends = log.events(id).filter(|seen| seen.kind() == "interaction_saved").count();
        assert_eq!(ends, 1, "{id}");
    }
    let mut rows: Vec<_> =
        cluster.rows().iter().map(|row| row["workflow_id"].as_str().expect("an id").to_owned()).collect();
    rows.sort_unstable();
    let mut wanted = ids.to_vec();
    wanted.sort_unstable();
    assert_eq!(rows, wanted, "one row each");
}

/// The process that runs a stage is killed three times while that stage has work in hand.
#[tokio::test]
async fn the_only_process_of_a_stage_may_be_killed_again_and_again() {
    let latency = ["--model-latency-ms", "150", "--source-latency-ms", "100"];
    let Some(mut cluster) = Cluster::start_with(0, &Settings::new(""), &latency).await else { return };
    let mut log = cluster.log().await;
    let run = |cluster: &Cluster, stage: &str, n: usize| {
        cluster.run(&format!("{stage}{n}"), &["worker", "--stages", stage])
    };
    let mut processes: Vec<Program> = STAGES.iter().map(|stage| run(&cluster, stage, 0)).collect();
    let mut all = Vec::new();
    let mut killed = Instant::now();
    for (place, stage) in STAGES.iter().enumerate() {
        let ids = workflows(stage, 40);
        cluster.publish_all(messages(&ids)).await;
        for kill in 1..=3 {
            // Something of this round has ended, so the rest is under way in every stage.
            let ended = |log: &Log| ids.iter().filter(|id| log.end(id).is_some()).count();
            log.until("the work goes on", |log| ended(log) >= 4 * kill).await;
            processes[place].kill();
            killed = Instant::now();
            processes[place] = run(&cluster, stage, kill);
        }
        all.extend(ids);
    }
    log.until_ended(&all).await;
    let fault = "the only process of each stage killed, 3 times";
    let figures = cluster.figures(1, fault, 3 * STAGES.len(), &log, &all).await;
    figures.recovered(killed.elapsed()).show();
    assert_all_saved_once(&cluster, &log, &all);
    // What a killed generation had in hand may be asked again: eight sessions, three kills.
    let calls = usize::try_from(cluster.stand_ins.count("model").await).expect("a count");
    assert!((all.len()..=all.len() + 3 * 8).contains(&calls), "{calls} calls for {} messages", all.len());
    assert_eq!(log.dead().count(), 0);
    cluster.workers.append(&mut processes);
    cluster.assert_workers_run();
}

/// Processor time of a process so far, in clock ticks of the kernel (a hundredth of a second on Linux).
fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// While the server is away nobody spins; when it is back, work goes on within five seconds.
#[tokio::test]
async fn workers_wait_for_nats_quietly_and_are_back_at_once() {
    const AWAY: Duration = Duration::from_secs(4);
    const BACK_WITHIN: Duration = Duration::from_secs(5);
    let Some(mut cluster) = Cluster::start(2, &Settings::new("")).await else { return };
    // Who cannot begin ends with a code that says so, and is started again by whoever runs it; here nobody would.
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let (mut all, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 0..3 {
        let ids = workflows(&format!("round{round}"), 10);
        cluster.publish_all(messages(&ids)).await;
        cluster.kill_nats();
        let pids: Vec<_> = cluster.workers.iter().map(Program::pid).collect();
        let before: Option<u64> = pids.iter().map(|pid| ticks(*pid)).sum();
        tokio::time::sleep(AWAY).await;
        let after: Option<u64> = pids.iter().map(|pid| ticks(*pid)).sum();
        cluster.revive_nats();
        let revived = Instant::now();
        if let (Some(before), Some(after)) = (before, after) {
            // A fifth of a core, for both of them together.
            let most = AWAY.as_secs() * 100 / 5;
            assert!(after - before < most, "{} ticks within {AWAY:?}", after - before);
        }
        let probe = format!("probe{round}");
        let client = async_nats::connect(cluster.nats.url()).await.expect("a NATS client");
        cluster.client = client;
        cluster.say(&probe, "demo", &probe, "Hello").await;
        let mut log = cluster.log().await;
        log.until_ended(&[&probe]).await;
        slowest = slowest.max(revived.elapsed());
        assert!(slowest < BACK_WITHIN, "back after {slowest:?}");
        all.extend(ids);
        all.push(probe);
    }
    let mut log = cluster.log().await;
    log.until_ended(&all).await;
    let figures = cluster.figures(4, "nats-server killed, away for 4 s, 3 times", 3, &log, &all).await;
    figures.recovered(slowest).show();
    assert_all_saved_once(&cluster, &log, &all);
    cluster.assert_workers_run();
}

/// Publishes until the server says no; the rest of the messages are not stored.
async fn publish_until_refused(cluster: &Cluster, ids: &[String]) -> usize {
    let jetstream = jetstream::new(cluster.client.clone());
    for (n, message) in messages(ids).into_iter().enumerate() {
        let sent = jetstream.publish(message.subject, message.payload).await.expect("sent");
        if sent.await.is_err() {
            return n;
        }
    }
    ids.len()
}

/// What was acknowledged before the disk was full ends when there is room again; nothing is dropped silently.
#[tokio::test]
async fn a_full_disk_under_nats_refuses_and_loses_nothing() {
    let Some(disk) = Disk::mount(NATS_DISK_MIB) else { return };
    let parts = Parts { nats: Some(disk.path()), ..Parts::default() };
    let settings = Settings::new("[nats]\nmax_bytes_mib = 16\n");
    let latency = ["--model-latency-ms", "300"];
    let Some(mut cluster) = Cluster::start_on(&parts, 2, &settings, &latency).await else { return };
    let before = workflows("before", 16);
    cluster.publish_all(messages(&before)).await;
    eventually("calls are under way", async || (cluster.stand_ins.count("model").await > 0).then_some(()))
        .await;
    disk.fill();
    let during = workflows("during", 200);
    let stored = publish_until_refused(&cluster, &during).await;
    assert!(stored < during.len(), "a full disk takes no {} messages", during.len());
    disk.empty();
    let emptied = Instant::now();
    // A server that could not write may need to be started again; what it acknowledged must be there all the same.
    cluster.crash_nats();
    cluster.client = async_nats::connect(cluster.nats.url()).await.expect("a NATS client");
    let after = workflows("after", 8);
    cluster.publish_all(messages(&after)).await;
    let mut log = cluster.log().await;
    let acknowledged = [&before[..], &during[..stored], &after[..]].concat();
    log.until_ended_within(2 * SOON, &acknowledged).await;
    let figures =
        cluster.figures(9, "no space under nats-server, which is killed", 2, &log, &acknowledged).await;
    figures.recovered(emptied.elapsed()).show();
    for id in &acknowledged {
        log.answer(id);
    }
    cluster.assert_workers_run();
}

/// A database without room is waited for like one that is locked.
#[tokio::test]
async fn a_full_disk_under_the_database_is_waited_for() {
    let Some(disk) = Disk::mount(DATABASE_DISK_MIB) else { return };
    let parts = Parts { database: Some(disk.path()), ..Parts::default() };
    let Some(mut cluster) = Cluster::start_on(&parts, 2, &Settings::new(""), &[]).await else { return };
    let mut log = cluster.log().await;
    let before = workflows("before", 8);
    cluster.publish_all(messages(&before)).await;
    log.until_ended(&before).await;
    disk.fill();
    let during = workflows("during", 64);
    cluster.publish_all(messages(&during)).await;
    eventually("somebody notices", async || {
        cluster.workers.iter().any(|worker| worker.stderr().contains("database")).then_some(())
    })
    .await;
    disk.empty();
    let emptied = Instant::now();
    log.until_ended_within(2 * SOON, &during).await;
    let all = [before, during].concat();
    let figures = cluster.figures(9, "no space under SQLite", 1, &log, &all).await;
    figures.recovered(emptied.elapsed()).show();
    assert_all_saved_once(&cluster, &log, &all);
    assert_eq!(cluster.stand_ins.count("model").await, all.len() as u64, "no call was made twice");
    cluster.assert_workers_run();
}
