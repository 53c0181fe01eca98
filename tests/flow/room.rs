//! The store for large bodies is full, or a result is larger than anything takes.

use std::time::Duration;

use serde_json::json;
use throughline_actors::policy::limits::LARGE_BODY_BYTES;
use throughline_schemas::{EventType, FailureCode, StageName};

use crate::harness::{PROVIDER, Rig, gate::NoRoom};

const LARGE: &str = "where is my order?";

/// Sources answer with a document that makes every event behind it large.
fn rig() -> Rig {
    let mut rig = Rig::new();
    for source in &mut rig.settings.sources {
        source.max_bytes = 1 << 20;
    }
    for stage in rig.settings.stages.values_mut() {
        stage.concurrency = 8;
    }
    rig.sources.always("order_history", Ok(json!({"orders": "x".repeat(100_000)})));
    rig
}

#[tokio::test(start_paused = true)]
async fn large_work_waits_and_small_work_goes_on() {
    let rig = rig();
    let worker = rig.worker().await;
    worker.gate.no_room(Some(NoRoom::Above(LARGE_BODY_BYTES)));
    let large: Vec<_> = (0..40).map(|n| rig.publish(&format!("l{n}"), &format!("l{n}"), LARGE)).collect();
    rig.pass(Duration::from_secs(30)).await;
    assert_eq!(rig.store.interactions(), 0);
    let troubles = worker.engine.observer().troubles();
    assert!(troubles.iter().any(|trouble| trouble.cause.class == "bodies_full"), "{troubles:?}");

    let before = rig.seconds();
    let small: Vec<_> = (0..40).map(|n| rig.publish(&format!("s{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &small {
        rig.saved(workflow).await;
    }
    assert!(rig.seconds() - before < 2.0, "small work took {} s", rig.seconds() - before);
    assert_eq!(rig.models.calls(PROVIDER), 40);

    rig.pass(Duration::from_mins(5)).await;
    worker.gate.no_room(None);
    let before = rig.seconds();
    for workflow in &large {
        rig.saved(workflow).await;
    }
    assert!(rig.seconds() - before < 65.0, "large work took {} s", rig.seconds() - before);
    assert_eq!(rig.models.calls(PROVIDER), 80, "no answer was paid for twice");
    assert!(rig.bus.dead_letters().is_empty() && worker.engine.observer().troubles().is_empty());
}

/// What is large as it comes to the model is not asked for while its answer would find no room.
#[tokio::test(start_paused = true)]
async fn nothing_is_paid_for_that_could_not_be_kept() {
    let rig = rig();
    let worker = rig.worker().await;
    worker.gate.no_room(Some(NoRoom::For(EventType::ResponseGenerated)));
    let crowd: Vec<_> = (0..30).map(|n| rig.publish(&format!("c{n}"), &format!("c{n}"), LARGE)).collect();
    rig.pass(Duration::from_mins(5)).await;
    let asked = rig.models.calls(PROVIDER);
    assert!(asked <= 8 + 8, "those under way when it became known, not all: {asked}");
    worker.gate.no_room(None);
    for workflow in &crowd {
        rig.saved(workflow).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_nothing_takes_ends_its_turn_at_once_and_is_told() {
    let rig = rig();
    let worker = rig.worker().await;
    worker.gate.refuse("response_generated w1");
    let refused = rig.publish("w1", "s1", "hello");
    let next = rig.publish("w2", "s1", "hello");
    let failed = rig.failed(&refused).await;
    assert_eq!((failed.code, failed.stage), (FailureCode::ResultTooLarge, StageName::Generation));
    assert!(failed.message.contains("kept as a dead letter"), "{}", failed.message);
    assert_eq!(failed.attempt_log.len(), 1, "what was paid for is on record");
    assert!(rig.seconds() < 1.0, "{} s", rig.seconds());
    assert_eq!(rig.bus.dead_letters().len(), 1);
    rig.saved(&next).await;
}
