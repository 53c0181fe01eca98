//! A workflow id is one message: the same message again gets its own end, another one is refused to its publisher.

use std::time::Duration;

use serde_json::json;
use throughline_actors::ports::memory::{model::answer, script::Reply};
use throughline_schemas::{Event, EventData, EventType, FailureCode, WorkflowFailed};

use crate::harness::{ACK_WAIT, JOURNEY, PROVIDER, Rig, id, reply_to};

/// The failures of a session, in the order of the log.
fn failures(rig: &Rig, session: &str) -> Vec<(String, WorkflowFailed)> {
    let of_session = |event: &Event| event.meta.session_id.as_str() == session;
    let failed = |event: Event| match event.data {
        EventData::WorkflowFailed(failed) => Some((event.meta.workflow_id.as_str().to_owned(), failed)),
        _ => None,
    };
    rig.bus.events().into_iter().filter(of_session).filter_map(failed).collect()
}

fn say(rig: &Rig, user: &str, session: &str, text: &str) -> u64 {
    rig.bus.publish_input(user, session, "order-77", text)
}

#[tokio::test(start_paused = true)]
async fn another_message_with_a_known_id_is_refused_to_its_publisher() {
    let (rig, _worker) = Rig::running().await;
    say(&rig, "ada", "a", "hello");
    rig.saved(&id("order-77")).await;
    let same_session = say(&rig, "ada", "a", "something else");
    say(&rig, "bob", "b", "what is my address?");
    say(&rig, "bob", "b", "hello");
    let other_user = say(&rig, "eve", "a", "hello");
    rig.pass(Duration::from_secs(1)).await;
    let in_a = failures(&rig, "a");
    let told: Vec<_> = in_a.iter().map(|(workflow, failed)| (workflow.as_str(), failed.code)).collect();
    let own = [same_session, other_user].map(|sequence| format!("order-77-conflict-{sequence}"));
    assert_eq!(told, [(own[0].as_str(), FailureCode::Conflict), (own[1].as_str(), FailureCode::Conflict)]);
    // In another session the id's own subject is free, and one end answers whatever is said there under it.
    let in_b = failures(&rig, "b");
    assert_eq!(in_b.len(), 1);
    assert_eq!((in_b[0].0.as_str(), in_b[0].1.code), ("order-77", FailureCode::Conflict));
    for (_, failed) in in_a.iter().chain(&in_b) {
        assert!(!failed.may_have_happened && !failed.retryable && failed.message.contains("order-77"));
        assert!(
            !failed.message.contains("re: hello"),
            "nothing of the other one is told: {}",
            failed.message
        );
    }
    assert_eq!(rig.models.calls(PROVIDER), 1);
    assert_eq!(rig.meters.count("throughline_conflicts_total", &[]), 4);
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_one_while_the_other_message_runs_or_waits_and_harms_neither() {
    let (rig, _worker) = Rig::running().await;
    rig.models
        .otherwise(PROVIDER, |request| Reply::After(Duration::from_secs(20), Ok(answer(&reply_to(request)))));
    let first = rig.publish("first", "a", "hello");
    say(&rig, "ada", "a", "and then?");
    let waiting = say(&rig, "ada", "a", "no, this");
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(failures(&rig, "a")[0].0, format!("order-77-conflict-{waiting}"));
    rig.saved(&first).await;
    rig.pass(Duration::from_secs(1)).await;
    let running = say(&rig, "ada", "a", "or this");
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(failures(&rig, "a")[1].0, format!("order-77-conflict-{running}"));
    let end = rig.saved(&id("order-77")).await;
    assert_eq!(end.response.text, "re: and then?");
    assert_eq!(rig.types(&id("order-77")), JOURNEY);
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn the_first_of_one_batch_has_the_id_and_a_redelivery_tells_nothing_twice() {
    let rig = Rig::new();
    say(&rig, "ada", "a", "hello");
    say(&rig, "ada", "a", "something else");
    say(&rig, "ada", "a", "hello");
    let worker = rig.worker().await;
    rig.saved(&id("order-77")).await;
    worker.crash();
    rig.bus.rewind(throughline_schemas::StageName::Input, 0);
    let _other = rig.worker().await;
    rig.pass(ACK_WAIT * 2).await;
    assert_eq!(failures(&rig, "a").len(), 1);
    assert_eq!(rig.types(&id("order-77")), JOURNEY);
    assert_eq!(rig.models.calls(PROVIDER), 1);
}

/// A CloudEvent with the id of these stories, structured or binary.
fn event_of(rig: &Rig, source: &str, user: &str, session: &str, is_binary: bool) -> u64 {
    let data = json!({"user_id": user, "session_id": session, "user_input": "hello"});
    let subject = rig.bus.namespace().bare_input();
    if is_binary {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-type", "user_input_received"),
            ("ce-id", "order-77"),
            ("ce-source", source),
        ];
        return rig.bus.publish_raw(&subject, &headers, data.to_string());
    }
    let event = json!({
        "specversion": "1.0", "type": "user_input_received", "id": "order-77", "source": source, "data": data,
    });
    rig.bus.publish_raw(&subject, &[], event.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_cloud_event_is_known_by_its_source_and_id() {
    let (rig, _worker) = Rig::running().await;
    event_of(&rig, "/shop/a", "ada", "a", false);
    rig.saved(&id("order-77")).await;
    for is_binary in [false, true] {
        event_of(&rig, "/shop/a", "ada", "a", is_binary);
    }
    rig.pass(Duration::from_secs(1)).await;
    say(&rig, "ada", "a", "hello");
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(failures(&rig, "a"), [], "an event that comes again is the same event, in whichever form");
    let own = [false, true].map(|is_binary| event_of(&rig, "/shop/b", "ada", "a", is_binary));
    event_of(&rig, "/shop/b", "bob", "b", false);
    rig.pass(Duration::from_secs(1)).await;
    let told = failures(&rig, "a").into_iter().map(|(workflow, failed)| (workflow, failed.code));
    let expected = own.map(|sequence| (format!("order-77-conflict-{sequence}"), FailureCode::Conflict));
    assert_eq!(told.collect::<Vec<_>>(), expected);
    assert_eq!(failures(&rig, "b")[0].1.code, FailureCode::Conflict);
    assert_eq!(rig.models.calls(PROVIDER), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_acceptable_at_all_is_told_as_that() {
    let (rig, _worker) = Rig::running().await;
    say(&rig, "ada", "a", "hello");
    rig.saved(&id("order-77")).await;
    say(&rig, "ada", "a", "  ");
    rig.pass(Duration::from_secs(1)).await;
    let told = failures(&rig, "a");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1.code, FailureCode::InvalidInput);
    assert!(told[0].0.starts_with("order-77-conflict-"), "{}", told[0].0);
    assert_eq!(rig.types(&id("order-77")), JOURNEY, "the id's own workflow has its own end");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_repeats_itself_gets_its_end_also_when_it_has_left_the_log() {
    let (rig, _worker) = Rig::running().await;
    say(&rig, "ada", "a", "hello");
    let told = rig.saved(&id("order-77")).await;
    let stored = rig.bus.stored().len();
    say(&rig, "ada", "a", "hello");
    rig.pass(Duration::from_secs(1)).await;
    assert_eq!(rig.bus.stored().len(), stored + 1, "the log has the end, where a reader looks first");
    rig.bus.roll_back(0);
    say(&rig, "ada", "a", "hello");
    let again = rig.saved(&id("order-77")).await;
    assert_eq!(json!(again), json!(told), "as it was told");
    let envelope = rig.events(&id("order-77")).remove(0).meta;
    assert_eq!(envelope.causation_id.as_deref(), Some("order-77.response_generated"));
    assert_eq!(envelope.source, "throughline/persistence");
    assert_eq!(rig.types(&id("order-77")), [EventType::InteractionSaved]);
    assert_eq!(rig.models.calls(PROVIDER), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_again_with_its_reason() {
    let (rig, _worker) = Rig::running().await;
    say(&rig, "ada", "a", "  ");
    let told = rig.failed(&id("order-77")).await;
    rig.bus.roll_back(0);
    say(&rig, "ada", "a", "  ");
    let again = rig.failed(&id("order-77")).await;
    assert_eq!((again.code, again.message), (told.code, told.message));
}
