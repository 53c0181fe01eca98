//! Mistakes that are made while everything runs: the worker's log, `doctor` or the end of the workflow tells.

use async_nats::jetstream;

use super::TOLD_WITHIN;
use crate::harness::{
    Cluster, SOON, Settings,
    cluster::{BARE, NAMESPACE},
    eventually,
    stand_ins::{model, of},
};

async fn answered(cluster: &Cluster, workflow: &str) {
    let mut log = cluster.log().await;
    log.until_ended_within(2 * SOON, &[workflow]).await;
    assert!(!log.answer(workflow).is_empty(), "{workflow}");
}

async fn doctor(cluster: &Cluster) -> String {
    let mut doctor = cluster.run("doctor", &["doctor"]);
    doctor.ended(SOON).await;
    doctor.stdout()
}

/// The end of a failed workflow, which came within the limit.
async fn failed(cluster: &Cluster, workflow: &str) -> String {
    let mut log = cluster.log().await;
    log.until_ended_within(TOLD_WITHIN, &[workflow]).await;
    log.failure(workflow).to_string()
}

#[tokio::test]
async fn what_is_done_wrongly_while_it_runs_is_told_and_costs_nothing() {
    let settings = Settings::new("[stages.generation]\nmax_attempts = 2");
    let Some(mut cluster) = Cluster::start(2, &settings).await else { return };
    for worker in &cluster.workers {
        worker.until_ready().await;
    }
    let streams = jetstream::new(cluster.client.clone());

    // A client publishes what is no JSON, and names no workflow.
    cluster.publish(BARE, &[], "Where is my order?").await;
    eventually("the dead letter is listed with its reason", async || {
        let mut list = cluster.run("list", &["dead", "list"]);
        list.ended(SOON).await;
        list.stdout().contains("not JSON").then_some(())
    })
    .await;
    // One publishes for nobody.
    let nobody = r#"{"workflow_id":"nobody","user_input":"Hello"}"#;
    cluster.publish(BARE, &[], nobody).await;
    assert!(failed(&cluster, "nobody").await.contains("user_id is missing; session_id is missing"));

    // The provider does not know the key (any more).
    cluster.stand_ins.fault(model(serde_json::json!({"status": 401, "remaining": 10}))).await;
    cluster.say("key", "ann", "key", "Hello").await;
    let told = failed(&cluster, "key").await;
    assert!(told.contains("model_rejected") && told.contains("401"), "{told}");
    cluster.stand_ins.heal().await;

    // A source is down: the answer says that it lacks it.
    cluster.stand_ins.fault(of("orders", serde_json::json!({"status": 500, "remaining": 10}))).await;
    cluster.say("lacks", "ann", "lacks", "Where is my order #W10007?").await;
    let mut log = cluster.log().await;
    log.until_ended_within(2 * SOON, &["lacks"]).await;
    let lacks = log.end("lacks").unwrap().data()["degraded"].to_string();
    assert!(lacks.contains("order_details"), "{lacks}");
    drop(log);
    cluster.stand_ins.heal().await;

    // Somebody deletes the consumers, one after the other, while inputs come.
    let events = streams.get_stream(format!("{NAMESPACE}_EVENTS")).await.unwrap();
    for (n, stage) in ["input", "context", "external", "generation", "persistence"].into_iter().enumerate() {
        events.delete_consumer(&format!("stage_{stage}")).await.unwrap();
        cluster.say(&format!("consumer{n}"), "ann", &format!("c{n}"), "Hello").await;
    }
    eventually("the workers tell of consumers that are gone, and what to do", async || {
        let log: String = cluster.workers.iter().map(super::super::harness::Program::stderr).collect();
        (log.contains("consumer deleted") && log.contains("run `throughline setup`")).then_some(())
    })
    .await;
    let said = doctor(&cluster).await;
    assert!(said.contains("throughline setup"), "{said}");
    let mut setup = cluster.run("setup", &["setup"]);
    assert_eq!(setup.ended(SOON).await.code(), Some(0), "{}", setup.stderr());
    // A worker that has given up, having said so, is started again by whoever looks after it.
    cluster.workers.retain_mut(super::super::harness::Program::is_running);
    cluster.add_worker();
    for n in 0..5 {
        answered(&cluster, &format!("consumer{n}")).await;
    }

    // All workers are killed in the middle of something, and others are started later.
    cluster.stand_ins.fault(model(serde_json::json!({"delay_ms": 1500, "remaining": 4}))).await;
    cluster.say("killed", "ann", "killed", "Hello").await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for worker in &mut cluster.workers {
        worker.kill();
    }
    cluster.workers.clear();
    let said = doctor(&cluster).await;
    assert!(said.contains("workers: none for") && said.contains("start `throughline worker`"), "{said}");
    cluster.stand_ins.heal().await;
    cluster.add_worker();
    answered(&cluster, "killed").await;

    // The server is stopped for a moment: whoever publishes is told, and the worker goes on by itself.
    cluster.kill_nats();
    let mut publish = cluster.run("publish", &["publish", "--user", "u", "--session", "s", "Hello"]);
    eventually("the publisher is told", async || {
        publish.stderr().contains("no NATS server answers").then_some(())
    })
    .await;
    assert_eq!(publish.ended(2 * SOON).await.code(), Some(69));
    cluster.revive_nats();
    cluster.say("revived", "ann", "revived", "Hello").await;
    answered(&cluster, "revived").await;
    cluster.assert_workers_run();

    // What was asked before all that can be asked again.
    let mut again = cluster.run(
        "again",
        &["publish", "--user", "ann", "--session", "killed", "--workflow-id", "killed", "--wait", "Hello"],
    );
    assert_eq!(again.ended(SOON).await.code(), Some(0), "{}", again.stderr());
    assert!(again.stdout().contains("I can help"), "{}", again.stdout());
}
