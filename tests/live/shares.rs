//! A user who publishes a hundred times as much as another one.

use std::time::Duration;

use serde_json::Value;
use throughline_schemas::Timestamp;

use crate::harness::{Cluster, Log, SOON, Settings, cluster::said};

/// What one process asks the model at once, and how long that takes. Few, because a test's build is slow: what is measured is
/// the waiting for the model.
const CALLS: usize = 8;
const MODEL_MS: &str = "500";
/// Messages of who is measured, and between two of them.
const MESSAGES: usize = 20;
const PAUSE: Duration = Duration::from_millis(300);
/// Messages of all others together: more than are answered while that one speaks.
const FLOOD: usize = 13 * CALLS;

/// Publishes what one user says now and then; the workflows.
async fn talk(cluster: &Cluster, name: &str) -> Vec<String> {
    let mut workflows = Vec::new();
    for n in 0..MESSAGES {
        let workflow = format!("{name}-{n}");
        cluster.say(&workflow, "ben", &workflow, "Hello").await;
        workflows.push(workflow);
        tokio::time::sleep(PAUSE).await;
    }
    workflows
}

/// From the storage of the message to that of its answer, of the slowest but one: p95 of twenty.
fn p95_ms(log: &Log, workflows: &[String]) -> u64 {
    let instant = |data: &Value, name: &str| {
        serde_json::from_value::<Timestamp>(data[name].clone()).expect("an instant")
    };
    let took = workflows.iter().map(|workflow| {
        let saved = log.event(workflow, "interaction_saved").expect("an answer").data();
        instant(saved, "saved_at").ms_since(instant(saved, "received_at"))
    });
    let mut took: Vec<_> = took.collect();
    eprintln!("{took:?} ms");
    took.sort_unstable();
    took[took.len() * 95 / 100 - 1]
}

/// A debug build that works on a flood on two cores is late by so much besides.
const BUSY_MS: u64 = 250;

/// One heavy user, then three. Whoever else speaks meanwhile waits at most twice as long as alone; among three, with whom the
/// calls are shared, at most four times.
#[tokio::test]
async fn a_user_at_a_hundred_times_the_load_at_most_doubles_the_wait_of_another() {
    let settings = Settings::new(&format!("[stages.generation]\nconcurrency = {CALLS}"));
    let arguments = ["--model-latency-ms", MODEL_MS];
    let Some(mut cluster) = Cluster::start_with(1, &settings, &arguments).await else { return };
    cluster.workers[0].until_ready().await;
    let mut log = cluster.log().await;
    let talked = talk(&cluster, "alone").await;
    log.until_ended(&talked).await;
    let alone = p95_ms(&log, &talked);
    let mut flooded = Vec::new();
    for (heavy, times) in [(&["ada"][..], 2), (&["cid", "dan", "eve"], 4)] {
        let name = |n: usize| (heavy[n % heavy.len()], format!("{}-{n}", heavy[n % heavy.len()]));
        let flood = (0..FLOOD).map(|n| {
            let (user, workflow) = name(n);
            said(&workflow, user, &workflow, "Hello")
        });
        cluster.publish_all(flood.collect()).await;
        let talked = talk(&cluster, &format!("among-{}", heavy.len())).await;
        log.until_ended(&talked).await;
        let among = p95_ms(&log, &talked);
        let done = (0..FLOOD).filter(|n| log.end(&name(*n).1).is_some()).count();
        assert!(done < FLOOD, "the others were still there");
        eprintln!(
            "p95 {alone} ms alone, {among} ms among the messages of {heavy:?}, {done} answered meanwhile"
        );
        assert!(among <= times * alone + BUSY_MS, "{among} ms, {alone} ms alone");
        flooded.extend((0..FLOOD).map(|n| name(n).1));
    }
    log.until_ended_within(2 * SOON, &flooded).await;
    assert!(flooded.iter().all(|workflow| log.answer(workflow).len() > 1));
    cluster.assert_workers_run();
}
