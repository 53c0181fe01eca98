//! Messages in hand share a budget of memory: large ones are worked on a few at a time, small ones meanwhile.

use std::time::Duration;

use serde_json::json;
use throughline_actors::{
    policy::limits::MEMORY_LONG_WAIT,
    ports::memory::{model::answer, script::Reply},
};
use throughline_schemas::StageName;

use crate::harness::{PROVIDER, Rig, question, reply_to};

const LARGE: &str = "where is my order?";
const MIB: u64 = 1 << 20;
const MODEL: Duration = Duration::from_secs(1);

/// Every event behind the orders has 300 kB, of which the generation stage takes five times as much: with a model that takes a
/// second, two at once.
fn rig() -> Rig {
    let mut rig = Rig::new();
    rig.settings.message_memory = 4 * MIB;
    for source in &mut rig.settings.sources {
        source.max_bytes = 400_000;
    }
    rig.sources.always("order_history", Ok(json!({"orders": "x".repeat(300_000)})));
    rig.models.otherwise(PROVIDER, |request| {
        let answer = Ok(answer(&reply_to(request)));
        if question(request) == LARGE { Reply::After(MODEL, answer) } else { Reply::Now(answer) }
    });
    rig
}

#[tokio::test(start_paused = true)]
async fn messages_that_exceed_the_memory_run_a_few_at_a_time_and_small_ones_pass() {
    let rig = rig();
    let worker = rig.worker().await;
    let large: Vec<_> = (0..30).map(|n| rig.publish(&format!("l{n}"), &format!("l{n}"), LARGE)).collect();
    rig.pass(Duration::from_millis(1_500)).await;
    assert_eq!(rig.models.in_flight(), 2);
    let memory = worker.engine.observer().memory();
    assert!(memory.waiting > 20 && memory.reserved <= memory.budget, "{memory:?}");

    let before = rig.seconds();
    let small: Vec<_> = (0..40).map(|n| rig.publish(&format!("s{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &small {
        rig.saved(workflow).await;
    }
    assert!(rig.seconds() - before < 0.5, "small work took {} s", rig.seconds() - before);

    for workflow in &large {
        rig.saved(workflow).await;
    }
    assert!((15.0..25.0).contains(&rig.seconds()), "{} s", rig.seconds());
    let asked_at_once = rig.models.peak_in_flight();
    assert!(
        asked_at_once <= 2 + 40,
        "two large ones, and small ones that are answered at once: {asked_at_once}"
    );
    assert_eq!(rig.models.calls(PROVIDER), 70, "nothing was asked twice");
    rig.pass(Duration::from_secs(1)).await;
    let memory = worker.engine.observer().memory();
    assert_eq!((memory.reserved, memory.waiting), (0, 0));
    rig.assert_idle();
}

/// With more large messages than may wait, the others go back to the server and come again; small ones have slots.
#[tokio::test(start_paused = true)]
async fn what_waits_for_memory_does_not_take_all_slots() {
    let mut rig = rig();
    for stage in rig.settings.stages.values_mut() {
        stage.concurrency = 8;
    }
    let worker = rig.worker().await;
    let large: Vec<_> = (0..40).map(|n| rig.publish(&format!("l{n}"), &format!("l{n}"), LARGE)).collect();
    rig.pass(Duration::from_millis(1_500)).await;
    let memory = worker.engine.observer().memory();
    assert!((1..=8).contains(&memory.waiting), "at most half of the slots of two stages: {memory:?}");
    let before = rig.seconds();
    let small = rig.publish("s", "s", "hello");
    rig.saved(&small).await;
    assert!(rig.seconds() - before < 0.5, "small work took {} s", rig.seconds() - before);
    for workflow in &large {
        rig.saved(workflow).await;
    }
    assert_eq!(rig.models.calls(PROVIDER), 41, "no answer was paid for twice");
    assert!(rig.bus.dead_letters().is_empty());
}

/// Stopping waits for what is worked on, not for what waits for memory: others have that at once.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_memory() {
    let rig = rig();
    let worker = rig.worker().await;
    let large: Vec<_> = (0..10).map(|n| rig.publish(&format!("l{n}"), &format!("l{n}"), LARGE)).collect();
    rig.pass(Duration::from_millis(200)).await;
    assert_eq!(rig.models.in_flight(), 2);
    let before = rig.seconds();
    let other = rig.worker().await;
    let drained = worker.drain(Duration::from_mins(5)).await;
    assert!(rig.seconds() - before < 1.5, "{} s", rig.seconds() - before);
    assert!(drained.finished >= 2, "{drained:?}");
    for workflow in &large {
        rig.saved(workflow).await;
    }
    assert!(rig.seconds() - before < 12.0, "the other one took {} s", rig.seconds() - before);
    assert_eq!(rig.models.calls(PROVIDER), 10);
    drop(other);
}

/// A delivery that waits is kept alive at the server, however long.
#[tokio::test(start_paused = true)]
async fn what_waits_is_not_delivered_to_others() {
    let rig = rig();
    let slow = Duration::from_secs(100);
    rig.models.otherwise(PROVIDER, move |request| Reply::After(slow, Ok(answer(&reply_to(request)))));
    let worker = rig.worker().await;
    let large: Vec<_> = (0..6).map(|n| rig.publish(&format!("l{n}"), &format!("l{n}"), LARGE)).collect();
    rig.pass(Duration::from_secs(50)).await;
    let memory = worker.engine.observer().memory();
    assert!(memory.longest_wait > 4 * MEMORY_LONG_WAIT, "{memory:?}");
    for workflow in &large {
        rig.saved(workflow).await;
    }
    assert_eq!(rig.models.calls(PROVIDER), 6);
    for stage in [StageName::External, StageName::Generation] {
        assert_eq!(rig.bus.in_hand(stage), 0);
    }
}
