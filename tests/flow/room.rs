//! The store for large bodies is full, or a result is larger than anything takes.

use std::time::Duration;

use serde_json::json;
use throughline_actors::{
    policy::limits::LARGE_BODY_BYTES,
    ports::{
        memory::{model::answer, script::Reply},
        model::ModelAnswer,
    },
};
use throughline_schemas::{Document, EventType, FailureCode, StageName};

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

/// What a source writes is escaped in the prompt, and escaped once more where the prompt is recorded.
#[tokio::test(start_paused = true)]
async fn a_prompt_that_leaves_no_room_for_its_answer_is_not_asked() {
    let mut rig = rig();
    rig.settings.sources[2].max_bytes = 16 << 20;
    let quotes = format!("\"{}\"", "\\\"".repeat(4 * 1024 * 1024));
    rig.sources.push("product_info", Reply::Now(Ok(Document::read(quotes.as_bytes()).unwrap())));
    let _worker = rig.worker().await;
    let refused = rig.publish("w1", "s1", "product PROD-1");
    let failed = rig.failed(&refused).await;
    assert_eq!((failed.code, failed.retryable), (FailureCode::ResultTooLarge, false));
    assert!(failed.message.contains("no model was asked"), "{}", failed.message);
    assert!(!failed.may_have_happened && failed.attempt_log.is_empty());
    assert_eq!((rig.models.calls(PROVIDER), rig.bus.dead_letters().len()), (0, 0));
    rig.saved(&rig.publish("w2", "s1", "hello")).await;
}

/// The text of an answer is what others need, and its raw form is left out where both do not fit.
#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_with_its_raw_form_is_recorded_without_it() {
    let rig = rig();
    let text = "\u{1}".repeat(1024 * 1024 + 1);
    let large = ModelAnswer { raw: json!({"text": text, "again": text}), ..answer(&text) };
    rig.models.push(PROVIDER, Reply::Now(Ok(large)));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    assert_eq!(rig.saved(&workflow).await.response.text, text);
    let raw = rig.generated(&workflow).raw_response;
    assert!(raw["left_out"].as_str().unwrap().contains("bytes"), "{raw}");
    assert_eq!(rig.verify().await, Vec::<String>::new());
}
