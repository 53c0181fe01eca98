//! Whoever listens hears what is stored, once and in order, whatever happens to the workers.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::{
    crashes::conversation,
    harness::{Cluster, Program, SOON, Settings, cluster::NAMESPACE, eventually, python},
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
