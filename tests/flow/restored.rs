//! A database that goes back in time while the log is kept.

use std::time::Duration;

use throughline_actors::ports::memory::{
    model::answer,
    script::Reply,
    store::{MemoryStore, TurnState},
};
use throughline_schemas::{EventType, WorkflowId};

use crate::harness::{JOURNEY, PROVIDER, Rig, id, reply_to};

const MINUTE: Duration = Duration::from_mins(1);
const SESSIONS: usize = 5;
const TURNS: usize = 4;

/// Some turns run and wait when the backup is made, some end later, some come later and end.
async fn goes_back(while_it_runs: bool, lost: bool) {
    let rig = Rig::new();
    rig.models
        .otherwise(PROVIDER, |request| Reply::After(Duration::from_secs(5), Ok(answer(&reply_to(request)))));
    let worker = rig.worker().await;
    let mut all: Vec<WorkflowId> = (0..TURNS)
        .flat_map(|turn| (0..SESSIONS).map(move |s| (turn, s)))
        .map(|(turn, s)| rig.publish(&format!("s{s}-t{turn}"), &format!("s{s}"), "hello"))
        .collect();
    // A turn that has failed is as good an end as any.
    rig.publish_raw(&[], r#"{"user_id":"ada","session_id":"s0","workflow_id":"bad","user_input":""}"#);
    rig.pass(Duration::from_secs(7)).await;
    let backup = if lost { MemoryStore::new().backup() } else { rig.store.backup() };
    for n in 0..10 {
        all.push(rig.publish(&format!("later{n}"), &format!("s{n}"), "and?"));
    }
    for workflow in &all {
        rig.saved(workflow).await;
    }
    rig.pass(MINUTE * 3).await;
    let calls = rig.models.calls(PROVIDER);
    let other = if while_it_runs {
        rig.store.put_back(&backup);
        worker
    } else {
        worker.drain(MINUTE).await;
        rig.store.put_back(&backup);
        rig.worker().await
    };
    let began = rig.seconds();
    let after: Vec<_> = (0..SESSIONS)
        .map(|s| rig.publish(&format!("s{s}-after"), &format!("s{s}"), "still there?"))
        .collect();
    for workflow in &after {
        rig.saved(workflow).await;
    }
    assert!(rig.seconds() - began < 60.0, "sessions go on after {} s", rig.seconds() - began);
    rig.pass(MINUTE * 2).await;
    all.extend(after);
    assert_eq!(rig.store.interactions(), all.len(), "every answer is back");
    for workflow in &all {
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}");
        assert_eq!(rig.store.turn(workflow), Some(TurnState::Saved), "{workflow}");
    }
    assert_eq!(rig.store.turn(&id("bad")), Some(TurnState::Failed));
    assert_eq!(rig.models.calls(PROVIDER), calls + SESSIONS, "nobody was asked again");
    assert!(rig.meters.count("throughline_turns_restored_total", &[]) > 0);
    // Nothing is left to do: another process finds everything in its place.
    let restored = rig.meters.count("throughline_turns_restored_total", &[]);
    other.drain(MINUTE).await;
    let _another = rig.worker().await;
    rig.pass(MINUTE * 2).await;
    assert_eq!(rig.meters.count("throughline_turns_restored_total", &[]), restored);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_went_back_gets_the_ends_that_the_log_has() {
    for (while_it_runs, lost) in [(false, false), (false, true), (true, false), (true, true)] {
        goes_back(while_it_runs, lost).await;
    }
}

/// The log is shorter than what the database has seen of it: nothing is put back, and nothing is looked for in vain.
#[tokio::test(start_paused = true)]
async fn a_log_that_went_back_takes_nothing_from_the_database() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let workflows: Vec<_> =
        (0..10).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    rig.pass(MINUTE * 3).await;
    worker.drain(MINUTE).await;
    rig.bus.roll_back(0);
    let _other = rig.worker().await;
    rig.pass(MINUTE * 2).await;
    assert_eq!(rig.store.interactions(), 10);
    let more = rig.publish("more", "s0", "hello");
    rig.saved(&more).await;
    assert_eq!(rig.meters.count("throughline_turns_restored_total", &[]), 0);
}

/// An id that the database has forgotten is published again: its publisher finds the end that it had, and the turns
/// behind it run.
#[tokio::test(start_paused = true)]
async fn a_forgotten_id_that_is_published_again_ends_as_it_did() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let first = rig.publish("w1", "s1", "hello");
    rig.saved(&first).await;
    worker.drain(MINUTE).await;
    rig.store.put_back(&MemoryStore::new().backup());
    rig.publish("w1", "s1", "hello");
    let next = rig.publish("n1", "s1", "and then?");
    let began = rig.seconds();
    let _other = rig.worker().await;
    rig.saved(&next).await;
    assert!(rig.seconds() - began < 25.0, "{} s", rig.seconds() - began);
    assert_eq!(rig.types(&first), JOURNEY);
    assert_eq!(rig.store.turn(&first), Some(TurnState::Saved));
    assert_eq!(rig.models.calls(PROVIDER), 2);
    assert!(rig.bus.event(EventType::WorkflowFailed, &first).is_none());
}
