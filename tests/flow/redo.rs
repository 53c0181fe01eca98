//! A workflow that failed is taken up where it failed, by a new one that hands on what the old one has on record.

use serde_json::json;
use throughline_actors::ports::{
    memory::{
        model::{answer, failure},
        script::Reply,
    },
    model::ModelError,
};
use throughline_schemas::{Event, EventData, EventType, FailureCode, WorkflowId, event::Redo};

use crate::harness::{PROVIDER, Rig};

const NOTHING: [String; 0] = [];

fn take_up(rig: &Rig, of: &str, as_id: &str, user: &str, from: &str) -> WorkflowId {
    let body = json!({
        "user_id": user, "session_id": "s", "workflow_id": as_id, "user_input": "where is my order?",
        "redo": {"of": of, "from": from},
    });
    rig.publish_raw(&[], &body.to_string());
    WorkflowId::new(as_id).unwrap()
}

/// A workflow that failed in its generation stage, after its sources were asked.
async fn failed(rig: &Rig) -> WorkflowId {
    rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::BadRequest("too hot".to_owned())))));
    let workflow = rig.publish("w", "s", "where is my order?");
    assert_eq!(rig.failed(&workflow).await.code, FailureCode::ModelRejected);
    workflow
}

#[tokio::test(start_paused = true)]
async fn what_is_on_record_is_handed_on_and_nobody_is_asked_for_it_again() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let old = failed(&rig).await;
    let (asked_sources, asked_models) = (rig.sources.calls("order_history"), rig.models.calls(PROVIDER));
    assert!(asked_sources > 0);
    rig.models.push(PROVIDER, Reply::Now(Ok(answer("at last"))));

    let new = take_up(&rig, "w", "w-redo-1", "ada", "generation");
    rig.saved(&new).await;
    assert_eq!(rig.sources.calls("order_history"), asked_sources, "no source is asked again");
    assert_eq!(rig.models.calls(PROVIDER), asked_models + 1);
    assert_eq!(rig.generated(&new).response.text, "at last");

    let data = |workflow: &WorkflowId| match rig.bus.event(EventType::ExternalDataFetched, workflow) {
        Some(Event { data: EventData::ExternalDataFetched(fetched), .. }) => fetched.external,
        other => panic!("{workflow} should have external data, but: {other:?}"),
    };
    assert_eq!(data(&new), data(&old));
    // The history has both, and says how they belong together.
    let redo = Redo { of: old.clone(), from: throughline_schemas::StageName::Generation };
    for event in rig.events(&new) {
        if let Some(request) = event.data.request() {
            assert_eq!(request.redo.as_ref(), Some(&redo), "{}", event.event_type());
            assert!(request.input_sequence > 1);
        }
    }
    assert_eq!(rig.types(&old).last(), Some(&EventType::WorkflowFailed));
    assert_eq!(rig.verify().await, NOTHING);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn from_an_earlier_stage_everything_after_it_is_done_again() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    failed(&rig).await;
    let asked = rig.sources.calls("order_history");
    let new = take_up(&rig, "w", "w-redo-1", "ada", "external");
    rig.saved(&new).await;
    assert!(rig.sources.calls("order_history") > asked, "the sources are asked again");
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_could_not_be_stored_is_not_paid_for_again() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let old = rig.publish("w", "s", "where is my order?");
    rig.saved(&old).await;
    let asked = rig.models.calls(PROVIDER);
    let new = take_up(&rig, "w", "w-redo-1", "ada", "persistence");
    rig.saved(&new).await;
    assert_eq!(rig.models.calls(PROVIDER), asked);
    assert_eq!(rig.generated(&new).response, rig.generated(&old).response);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn what_is_another_s_or_not_there_is_not_handed_on() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    failed(&rig).await;
    let asked = rig.sources.calls("order_history");
    for (of, id, user) in [("w", "other", "eve"), ("never", "none", "ada")] {
        let before = rig.sources.calls("order_history");
        let new = take_up(&rig, of, id, user, "generation");
        rig.saved(&new).await;
        assert!(rig.sources.calls("order_history") > before, "{id}: it does the work itself");
    }
    assert!(rig.sources.calls("order_history") > asked);
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_none_is_refused_with_a_reason() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let new = take_up(&rig, "w", "w-redo-1", "ada", "nowhere");
    let failed = rig.failed(&new).await;
    assert_eq!(failed.code, FailureCode::InvalidInput);
    assert!(
        failed.message.contains("redo must be") && failed.message.contains("nowhere"),
        "{}",
        failed.message
    );
    drop(worker);
}
