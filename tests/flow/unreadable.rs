//! Events that this version cannot read: their workflows end, their sessions go on, and nobody dead-letters them twice.

use std::time::Duration;

use throughline_actors::ports::memory::store::TurnState;
use throughline_schemas::{
    EventData, EventType, FailureCode, StageName, WorkflowFailed, WorkflowId, dead_letter, token,
};

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, Rig};

/// How a workflow failed; the log may have what cannot be read.
async fn failed(rig: &Rig, workflow: &WorkflowId) -> WorkflowFailed {
    let told = rig.bus.wait_until(|bus| {
        let ended = rig.store.turn(workflow) == Some(TurnState::Failed);
        ended.then(|| bus.event(EventType::WorkflowFailed, workflow)).flatten()
    });
    let event = tokio::time::timeout(Duration::from_mins(5), told).await.expect("it ends");
    match event.data {
        EventData::WorkflowFailed(failed) => failed,
        other => panic!("{other:?}"),
    }
}

/// A workflow whose stage is slow, and its successor in the session.
async fn with_slow_context() -> (Rig, crate::harness::Worker) {
    let (rig, worker) = Rig::running().await;
    worker.gate.on(|op, about| {
        if op == Op::Context && about.contains("slow") { Act::Slow(Duration::from_secs(20)) } else { Act::Go }
    });
    (rig, worker)
}

/// An envelope that says whose it is, with a body of another time.
fn of_later(workflow: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"x","source":"throughline/context","type":"context_retrieved","time":"2031-01-01T00:00:00Z",
           "dataschema":"urn:throughline:event:context_retrieved:v2","workflowid":{},"sessionid":"s","userid":"u",
           "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","data":{{"all":"new"}}}}"#,
        serde_json::Value::from(workflow)
    )
}

#[tokio::test(start_paused = true)]
async fn the_workflow_of_an_unreadable_event_ends_and_its_session_goes_on() {
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(126), "]".repeat(126));
    let later_without_plain_ids = of_later("wörk 1");
    let stories = [
        ("w1", of_later("w1")),
        ("w1", deep),
        ("w1", "rubbish".to_owned()),
        ("w1", String::new()),
        ("wörk 1", later_without_plain_ids),
        // Nothing but the hash of its id: the database knows which turn it is of.
        ("wörk 1", "{}".to_owned()),
    ];
    for (workflow, body) in stories {
        let (rig, _worker) = with_slow_context().await;
        let first = rig.publish(workflow, "slow session", "hello");
        let second = rig.publish("w2", "slow session", "and then?");
        rig.pass(Duration::from_secs(1)).await;
        let subject =
            format!("throughline.v1.context_retrieved.{}.{}", token("slow session"), token(workflow));
        let id = format!("{}.context_retrieved", token(workflow));
        rig.bus.publish_raw(&subject, &[("Nats-Msg-Id", &id)], body.clone());
        let failed = failed(&rig, &first).await;
        assert_eq!(
            (failed.code, failed.stage),
            (FailureCode::UnreadableEvent, StageName::External),
            "{body}"
        );
        assert!(rig.seconds() < 30.0, "{body}: {} s", rig.seconds());
        rig.bus.wait_until(|_| (rig.store.turn(&second) == Some(TurnState::Saved)).then_some(())).await;

        rig.pass(ACK_WAIT * 10).await;
        let dead = rig.bus.dead_letters();
        assert_eq!(dead.len(), 1, "{body}: buried once");
        assert_eq!(dead[0].header(dead_letter::CODE), Some("unreadable_event"));
        let ends = rig.bus.events().into_iter().filter(|event| event.event_type().is_end());
        assert_eq!(ends.filter(|event| event.meta.workflow_id == first).count(), 1, "{body}");
        rig.assert_idle();
    }
}

/// The server also writes where a publisher makes it send an acknowledgement. The true event takes the place.
#[tokio::test(start_paused = true)]
async fn what_is_no_event_of_ours_ends_nothing() {
    for body in ["{\"stream\":\"throughline_EVENTS\",\"seq\":7}", "rubbish", "", "{}"] {
        let (rig, _worker) = with_slow_context().await;
        let workflow = rig.publish("w1", "slow session", "hello");
        rig.pass(Duration::from_secs(1)).await;
        let subject = format!("throughline.v1.context_retrieved.{}.w1", token("slow session"));
        rig.bus.publish_raw(&subject, &[], body);
        rig.saved(&workflow).await;
        assert_eq!(rig.types(&workflow), JOURNEY, "{body}");
        assert_eq!(rig.bus.until_dead_letters(1).await.len(), 1, "{body}: buried once");
        rig.pass(ACK_WAIT * 10).await;
        rig.assert_idle();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_event_of_another_session_or_of_nobody_ends_nothing() {
    let (rig, _worker) = with_slow_context().await;
    let workflow = rig.publish("w1", "slow", "hello");
    rig.pass(Duration::from_secs(1)).await;
    for subject in [
        "throughline.v1.context_retrieved.other.w1".to_owned(),
        "throughline.v1.context_retrieved.slow.w9".to_owned(),
        format!("throughline.v1.context_retrieved.slow.{}", token("nobody's id")),
    ] {
        rig.bus.publish_raw(&subject, &[], of_later("w1"));
    }
    assert_eq!(rig.bus.until_dead_letters(3).await.len(), 3);
    rig.bus.wait_until(|_| (rig.store.turn(&workflow) == Some(TurnState::Saved)).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_version_dead_lettered_without_ending_its_workflow_is_not_published_again() {
    let (rig, worker) = with_slow_context().await;
    // It dead-letters, and neither ends the workflow nor comes to it again: as versions before this one did.
    worker.gate.on(|op, about| match op {
        Op::Context if about.contains("slow") => Act::Slow(Duration::from_hours(1)),
        Op::Fail => Act::Lost,
        _ => Act::Go,
    });
    let first = rig.publish("w1", "slow", "hello");
    rig.pass(Duration::from_secs(1)).await;
    rig.bus.publish_raw("throughline.v1.context_retrieved.slow.w1", &[], of_later("w1"));
    rig.bus.until_dead_letters(1).await;
    worker.crash();
    let _other = rig.worker().await;
    assert_eq!(failed(&rig, &first).await.code, FailureCode::UnreadableEvent);
    let copies = rig
        .bus
        .stored()
        .iter()
        .filter(|stored| stored.subject.ends_with("context_retrieved.slow.w1"))
        .count();
    assert_eq!(copies, 1, "it was not published again");
}
