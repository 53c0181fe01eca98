//! The leader of the streams is killed three times, and then frozen.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{HeaderMap, jetstream};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::rig::Rig;
use crate::harness::{
    Figures, Log, Nodes, SOON,
    cluster::{BARE, NAMESPACE},
};

pub(super) const EVENTS: &str = "throughline_EVENTS";
const KILLS: usize = 3;
/// How long the leader is frozen.
const PAUSE: Duration = Duration::from_secs(10);
/// No acknowledgement takes longer than this, whatever happens to one node.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Within this after the last fault everything has ended.
pub(super) const END_LIMIT: Duration = Duration::from_mins(1);
/// How long one attempt to publish may take. The next one has the same message id.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Between two inputs, and between two attempts.
const PACE: Duration = Duration::from_millis(50);
/// Inputs that are acknowledged before a fault, and after it, before the next.
pub(super) const STEADY: usize = 20;
/// Sessions that inputs are spread over.
const SESSIONS: usize = 8;

/// A publisher that is not ours: one input after the other, each until it is acknowledged.
pub(super) struct Publisher {
    stop: Arc<AtomicBool>,
    acknowledged: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<Published>,
}

/// What it did.
#[derive(Default)]
pub(super) struct Published {
    /// Workflows whose input was acknowledged, in order.
    pub(super) acknowledged: Vec<String>,
    /// The longest time that one input took to be acknowledged.
    pub(super) stall: Duration,
    /// Attempts without an acknowledgement.
    pub(super) unanswered: usize,
}

impl Publisher {
    pub(super) fn start(client: async_nats::Client, name: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (count, acknowledged) = watch::channel(0);
        let task = tokio::spawn(publish(client, name, Arc::clone(&stop), count));
        Self { stop, acknowledged, task }
    }

    /// Waits until this many more inputs have been acknowledged.
    pub(super) async fn acknowledges(&self, more: usize) {
        let mut acknowledged = self.acknowledged.clone();
        let goal = *acknowledged.borrow() + more;
        let reached = acknowledged.wait_for(|count| *count >= goal);
        let reached = tokio::time::timeout(SOON, reached).await;
        reached.expect("inputs are acknowledged").expect("it publishes");
    }

    pub(super) async fn stop(self) -> Published {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn publish(
    client: async_nats::Client,
    name: String,
    stop: Arc<AtomicBool>,
    count: watch::Sender<usize>,
) -> Published {
    let jetstream = jetstream::ContextBuilder::new().timeout(ATTEMPT).build(client);
    let mut published = Published::default();
    let mut pace = tokio::time::interval(PACE);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (workflow, session) = (format!("{name}-{number}"), format!("s{}", number % SESSIONS));
        let body =
            json!({"user_id": "demo", "session_id": session, "user_input": "Hello", "workflow_id": workflow});
        let began = Instant::now();
        loop {
            pace.tick().await;
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", workflow.as_str());
            let sent = jetstream.publish_with_headers(BARE, headers, body.to_string().into()).await;
            let answered = match sent {
                Ok(ack) => ack.await.is_ok(),
                Err(_) => false,
            };
            if answered {
                break;
            }
            published.unanswered += 1;
        }
        published.stall = published.stall.max(began.elapsed());
        published.acknowledged.push(workflow);
        count.send_replace(published.acknowledged.len());
    }
    published
}

/// What became of these inputs, with the model calls since `calls`; `stall` is the longest time that one of them took to
/// be acknowledged.
pub(super) async fn show_figures(
    rig: &Rig,
    (row, fault): (u8, &'static str),
    faults: usize,
    log: &Log,
    sent: &[String],
    calls: &mut u64,
    stall: Duration,
) {
    let id = |row: &serde_json::Value| row["workflow_id"].as_str().expect("an id").to_owned();
    let rows: Vec<_> = rig.rows().iter().map(id).collect();
    let before = std::mem::replace(calls, rig.stand_ins.count("model").await);
    let figures = Figures::count(row, fault, faults, log, sent).rows(log, sent, rows);
    figures.calls(*calls - before).recovered(stall).show();
}

/// Every acknowledged input ended well, once, and is stored once; one without an answer at most once.
pub(super) async fn assert_nothing_lost(
    rig: &Rig,
    log: &mut Log,
    acknowledged: &[String],
    unknown: &[String],
) {
    log.until_ended_within(END_LIMIT, acknowledged).await;
    for workflow in acknowledged {
        let ends = log.events(workflow).filter(|seen| seen.kind() == "interaction_saved").count();
        assert_eq!(
            ends,
            1,
            "{workflow}: {:?}",
            log.events(workflow).map(crate::harness::Seen::kind).collect::<Vec<_>>()
        );
        assert!(log.event(workflow, "workflow_failed").is_none(), "{workflow}");
    }
    let rows = rig.rows();
    let stored: BTreeSet<_> =
        rows.iter().map(|row| row["workflow_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(rows.len(), stored.len(), "one row for each");
    let acknowledged: BTreeSet<_> = acknowledged.iter().cloned().collect();
    let extra: Vec<_> = stored.difference(&acknowledged).filter(|id| !unknown.contains(id)).collect();
    assert!(extra.is_empty(), "nobody published these: {extra:?}");
    assert!(stored.is_superset(&acknowledged));
    assert_eq!(log.dead().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_or_freezes_costs_seconds_and_no_input() {
    let Some(nodes) = Nodes::start().await else { return };
    let mut rig = Rig::start(nodes, 2).await;
    let admin = rig.nodes.connect("admin", None).await;
    let mut log = Log::follow(&admin, NAMESPACE).await;
    let (mut acknowledged, mut calls, mut stall) = (Vec::new(), 0, Duration::ZERO);
    for fault in 0..=KILLS {
        if fault == KILLS {
            log.until_ended_within(END_LIMIT, &acknowledged).await;
            let row = (5, "the leader of three killed (over: longest wait)");
            show_figures(&rig, row, KILLS, &log, &acknowledged, &mut calls, stall).await;
        }
        rig.nodes.until_current(&admin, EVENTS).await;
        let leader = rig.nodes.leader(&admin, EVENTS).await;
        // Whoever is connected to a node that freezes waits with it; that is not what is measured.
        let client = rig.nodes.connect("publisher", (fault == KILLS).then_some(leader)).await;
        let publisher = Publisher::start(client, format!("f{fault}"));
        publisher.acknowledges(STEADY).await;
        if fault < KILLS {
            rig.nodes.kill(leader);
        } else {
            rig.nodes.signal(leader, "STOP");
            tokio::time::sleep(PAUSE).await;
            rig.nodes.signal(leader, "CONT");
        }
        publisher.acknowledges(STEADY).await;
        if fault < KILLS {
            rig.nodes.run(leader);
        }
        let done = publisher.stop().await;
        eprintln!(
            "{}: {} acknowledged, {} attempts unanswered, longest wait {:?}",
            if fault < KILLS { "kill -9 of the leader" } else { "SIGSTOP of the leader" },
            done.acknowledged.len(),
            done.unanswered,
            done.stall,
        );
        assert!(done.stall < STALL_LIMIT, "{:?}", done.stall);
        if fault < KILLS {
            stall = stall.max(done.stall);
        } else {
            log.until_ended_within(END_LIMIT, &done.acknowledged).await;
            let row = (7, "the leader of three frozen for 10 s (over: longest wait)");
            show_figures(&rig, row, 1, &log, &done.acknowledged, &mut calls, done.stall).await;
        }
        acknowledged.extend(done.acknowledged);
    }
    assert_nothing_lost(&rig, &mut log, &acknowledged, &[]).await;
    for worker in &mut rig.workers {
        assert!(worker.is_running(), "{}", worker.stderr());
    }
}
