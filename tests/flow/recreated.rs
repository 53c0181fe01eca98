//! Consumers that begin again, and streams that were restored: paid work is not done again.

use std::time::Duration;

use throughline_actors::ports::{
    memory::{model::failure, script::Reply},
    model::ModelError,
};
use throughline_schemas::{StageName, WorkflowId};

use crate::harness::{ACK_WAIT, JOURNEY, PROVIDER, Rig};

const STAGES: [StageName; 4] =
    [StageName::Context, StageName::External, StageName::Generation, StageName::Persistence];

fn not_repeated(rig: &Rig, stage: StageName) -> u64 {
    rig.meters.count("throughline_work_not_repeated_total", &[("stage", stage.as_str())])
}

fn publish(rig: &Rig, count: usize) -> Vec<WorkflowId> {
    (0..count).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect()
}

async fn all_saved_once(rig: &Rig, workflows: &[WorkflowId]) {
    for workflow in workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}: one of each event");
    }
    assert_eq!(rig.models.calls(PROVIDER), workflows.len(), "each model call is made once");
    assert_eq!(rig.store.interactions(), workflows.len());
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_rewound_while_workers_run_repeats_nothing() {
    for stage in STAGES {
        let (rig, _worker) = Rig::running().await;
        let workflows = publish(&rig, 5);
        all_saved_once(&rig, &workflows).await;
        rig.bus.rewind(stage, 0);
        rig.pass(ACK_WAIT * 2).await;
        all_saved_once(&rig, &workflows).await;
        // Saving again is cheap and changes nothing, so the last stage does not look first.
        let looked = if stage == StageName::Persistence { 0 } else { 5 };
        assert_eq!(not_repeated(&rig, stage), looked, "{stage}");
        rig.assert_idle();
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_recreated_while_no_worker_runs_repeats_nothing() {
    for stage in STAGES {
        let (rig, worker) = Rig::running().await;
        let workflows = publish(&rig, 5);
        all_saved_once(&rig, &workflows).await;
        let _ = worker.drain(Duration::from_secs(5)).await;
        rig.bus.rewind(stage, 0);
        let _next = rig.worker().await;
        rig.pass(ACK_WAIT * 2).await;
        all_saved_once(&rig, &workflows).await;
        rig.assert_idle();
    }
}

#[tokio::test(start_paused = true)]
async fn all_consumers_together_repeat_nothing_whichever_process_takes_the_events() {
    let rig = Rig::new();
    let _workers = [rig.worker().await, rig.worker().await, rig.worker().await];
    let workflows = publish(&rig, 30);
    all_saved_once(&rig, &workflows).await;
    rig.pass(Duration::from_secs(3)).await;
    for stage in STAGES {
        rig.bus.rewind(stage, 0);
    }
    rig.pass(ACK_WAIT * 2).await;
    all_saved_once(&rig, &workflows).await;
    let newer = [rig.publish("newer", "s0", "and then?")];
    rig.saved(&newer[0]).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_failed_stays_failed_and_its_session_goes_on() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::BadRequest("injected".to_owned())))));
    let failed = rig.publish("w1", "s1", "refuse this");
    let next = rig.publish("w2", "s1", "and then?");
    rig.failed(&failed).await;
    rig.saved(&next).await;
    let calls = rig.models.calls(PROVIDER);
    for stage in STAGES {
        rig.bus.rewind(stage, 0);
    }
    rig.pass(ACK_WAIT * 2).await;
    rig.failed(&failed).await;
    assert_eq!(rig.models.calls(PROVIDER), calls);
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_vanished_from_the_log_with_its_end_is_not_asked_for_again() {
    let (rig, worker) = Rig::running().await;
    let workflows = publish(&rig, 3);
    all_saved_once(&rig, &workflows).await;
    let _ = worker.drain(Duration::from_secs(5)).await;
    // A snapshot from before the first answer is put back: its consumers remember nothing, the database everything.
    let before = rig.bus.stored().iter().position(|stored| stored.subject.contains("response_generated"));
    rig.bus.roll_back(before.expect("there is an answer") as u64);
    for stage in STAGES {
        rig.bus.rewind(stage, 0);
    }
    let _next = rig.worker().await;
    rig.pass(ACK_WAIT * 2).await;
    assert_eq!(rig.models.calls(PROVIDER), 3, "the database knows that the turns have ended");
    assert_eq!(rig.store.interactions(), 3);
    for workflow in &workflows {
        let saved = rig.saved(workflow).await;
        assert_eq!(saved.response.text, "re: hello", "the end is told again from the database");
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_waited_for_long_is_done_all_the_same() {
    let rig = Rig::new();
    let workflows = publish(&rig, 10);
    rig.pass(Duration::from_hours(1)).await;
    let _worker = rig.worker().await;
    all_saved_once(&rig, &workflows).await;
    for stage in STAGES {
        assert_eq!(not_repeated(&rig, stage), 0, "{stage}");
    }
}
