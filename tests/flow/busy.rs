//! Messages that find their session busy: they wait, are rejected, interrupt the running turn, or become one turn.

use std::time::Duration;

use serde_json::json;
use throughline_actors::ports::{
    bus::Broadcast,
    memory::{model::answer, script::Reply},
};
use throughline_schemas::{EventData, EventType, FailureCode, WorkflowId, event::input::WhenBusy};

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, id, question, reply_to};

const MINUTE: Duration = Duration::from_mins(1);

/// Says something in session `s`, and what to do if it is busy.
fn say(rig: &Rig, workflow: &str, text: &str, when_busy: &str) -> WorkflowId {
    let body = json!({
        "user_id": "ada", "session_id": "s", "workflow_id": workflow, "user_input": text, "when_busy": when_busy,
    });
    rig.publish_raw(&[], &body.to_string());
    id(workflow)
}

/// A world whose model takes a minute.
fn slow() -> Rig {
    let rig = Rig::new();
    rig.models.otherwise(PROVIDER, |request| Reply::After(MINUTE, Ok(answer(&reply_to(request)))));
    rig
}

fn asked(rig: &Rig) -> Vec<String> {
    rig.models.requests().iter().map(question).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_want_to_wait_fails_at_once() {
    let rig = slow();
    let _worker = rig.worker().await;
    let first = rig.publish("w1", "s", "one");
    rig.pass(MINUTE / 2).await;
    let second = say(&rig, "w2", "two", "reject");
    let failed = rig.failed(&second).await;
    assert_eq!((failed.code, failed.retryable), (FailureCode::SessionBusy, true));
    assert!(rig.seconds() < 31.0, "at once");
    rig.saved(&first).await;
    let third = say(&rig, "w3", "three", "reject");
    rig.saved(&third).await;
    assert_eq!(rig.types(&second), [EventType::WorkflowFailed]);
    assert_eq!(asked(&rig), ["one", "three"]);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_stops_the_call_in_whichever_process_it_is() {
    let rig = slow();
    // Whichever of them asks the model, and whichever admits.
    let _workers = [rig.worker().await, rig.worker().await];
    for round in 0..6 {
        let (long, short) = (format!("long-{round}"), format!("short-{round}"));
        let began = rig.seconds();
        let running = rig.publish(&long, "s", &long);
        rig.pass(MINUTE / 2).await;
        assert_eq!(rig.models.in_flight(), 1);
        let by = say(&rig, &short, &short, "interrupt");
        let failed = rig.failed(&running).await;
        assert_eq!((failed.code, failed.superseded_by.as_ref()), (FailureCode::Interrupted, Some(&by)));
        assert!(failed.may_have_happened && !failed.retryable);
        rig.pass(Duration::from_secs(1)).await;
        assert_eq!(asked(&rig).last(), Some(&short));
        assert_eq!(rig.models.in_flight(), 1, "the other call has been dropped");
        rig.saved(&by).await;
        assert!(rig.seconds() - began < 92.0);
        assert_eq!(rig.types(&by), JOURNEY);
    }
    rig.pass(ACK_WAIT * 3).await;
    assert_eq!(rig.models.calls(PROVIDER), 12, "an interrupted call is not made again");
    rig.assert_idle();
}

/// Whoever can write on the control subject can say so of any workflow, also of one to come: it only makes workers ask the
/// database.
#[tokio::test(start_paused = true)]
async fn a_false_interruption_stops_nobody() {
    let rig = slow();
    let _workers = [rig.worker().await, rig.worker().await];
    let say_interrupted = async |id: &WorkflowId| {
        let body = json!({"workflow_id": id}).to_string();
        rig.bus.announce("interrupt", body.into()).await.unwrap();
    };
    for early in [true, false] {
        for n in 0..10 {
            let name = format!("w{n}-{early}");
            if early {
                say_interrupted(&id(&name)).await;
            }
            let workflow = rig.publish(&name, &name, &name);
            for _ in 0..5 {
                rig.pass(Duration::from_secs(5)).await;
                say_interrupted(&workflow).await;
            }
            rig.saved(&workflow).await;
            assert_eq!(rig.types(&workflow), JOURNEY);
        }
    }
    assert_eq!(rig.models.calls(PROVIDER), 20, "nobody is asked again");
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn what_waits_before_an_interruption_keeps_its_place() {
    let rig = slow();
    let _worker = rig.worker().await;
    let running = rig.publish("w1", "s", "one");
    let waiting = rig.publish("w2", "s", "two");
    rig.pass(MINUTE / 2).await;
    let by = say(&rig, "w3", "three", "interrupt");
    assert_eq!(rig.failed(&running).await.code, FailureCode::Interrupted);
    rig.saved(&waiting).await;
    rig.saved(&by).await;
    assert_eq!(asked(&rig), ["one", "two", "three"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_messages_become_one_turn_with_all_their_texts() {
    let rig = slow();
    let _worker = rig.worker().await;
    let first = rig.publish("w1", "s", "one");
    rig.pass(MINUTE / 2).await;
    let carrier = say(&rig, "w2", "two", "merge");
    let merged = [say(&rig, "w3", "three", "merge"), say(&rig, "w4", "four", "merge")];
    for workflow in &merged {
        let failed = rig.failed(workflow).await;
        assert_eq!((failed.code, failed.superseded_by.as_ref()), (FailureCode::Merged, Some(&carrier)));
        assert!(failed.message.contains("w2"), "{}", failed.message);
        assert_eq!(rig.types(workflow), [EventType::WorkflowFailed]);
    }
    rig.saved(&first).await;
    rig.saved(&carrier).await;
    assert_eq!(rig.types(&carrier), JOURNEY);
    assert_eq!(asked(&rig), ["one", "two\n\nthree\n\nfour"]);
    let Some(EventData::InputValidated(begun)) =
        rig.bus.event(EventType::InputValidated, &carrier).map(|event| event.data)
    else {
        panic!("it began")
    };
    assert_eq!(begun.request.merged, merged);
    assert_eq!(rig.store.interaction(&carrier).unwrap().request.user_input, "two\n\nthree\n\nfour");
}

#[tokio::test(start_paused = true)]
async fn the_configuration_decides_where_a_message_does_not() {
    let mut rig = slow();
    rig.settings.sessions.when_busy = WhenBusy::Reject;
    let _worker = rig.worker().await;
    let first = rig.publish("w1", "s", "one");
    rig.pass(MINUTE / 2).await;
    let second = rig.publish("w2", "s", "two");
    let third = say(&rig, "w3", "three", "enqueue");
    assert_eq!(rig.failed(&second).await.code, FailureCode::SessionBusy);
    rig.saved(&first).await;
    rig.saved(&third).await;
    let odd = say(&rig, "w4", "four", "shout");
    let failed = rig.failed(&odd).await;
    assert_eq!(failed.code, FailureCode::InvalidInput);
    assert!(failed.message.contains("enqueue, reject, interrupt or merge"), "{}", failed.message);
}

#[tokio::test(start_paused = true)]
async fn a_death_anywhere_in_between_changes_nothing() {
    let events = ["workflow_failed w1", "input_validated w2", "workflow_failed w4"];
    let publishes = events.into_iter().map(|event| (Op::Publish, event));
    for (op, marker) in publishes.chain([(Op::Admit, "w2"), (Op::Admit, "w4"), (Op::Settle, "user_input")]) {
        for act in [Act::Die, Act::DieAfter] {
            let rig = slow();
            let doomed = rig.worker().await;
            let running = rig.publish("w1", "s", "one");
            rig.pass(MINUTE / 2).await;
            doomed.gate.once(op, marker, act);
            let by = say(&rig, "w2", "two", "interrupt");
            rig.pass(Duration::from_secs(1)).await;
            let carrier = say(&rig, "w3", "three", "merge");
            let merged = say(&rig, "w4", "four", "merge");
            doomed.gate.died().await;
            let _other = rig.worker().await;
            let why = format!("{op:?} {marker} {act:?}");
            assert_eq!(rig.failed(&running).await.code, FailureCode::Interrupted, "{why}");
            assert_eq!(rig.failed(&merged).await.code, FailureCode::Merged, "{why}");
            rig.saved(&by).await;
            rig.saved(&carrier).await;
            assert_eq!(asked(&rig).last().unwrap(), "three\n\nfour", "{why}");
            assert_eq!(rig.store.interactions(), 2, "{why}");
            rig.pass(ACK_WAIT * 3).await;
            rig.assert_idle();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn open_turns_are_counted_by_state_with_the_age_of_the_oldest() {
    let rig = slow();
    let _worker = rig.worker().await;
    let first = rig.publish("w1", "s", "one");
    rig.pass(MINUTE / 6).await;
    let others = [rig.publish("w2", "s", "two"), rig.publish("w3", "s", "three")];
    let gauge = |name: &str, state: &str| rig.meters.gauge(name, &[("state", state)]).unwrap();
    rig.pass(MINUTE / 3).await;
    assert_eq!((gauge("throughline_turns", "running"), gauge("throughline_turns", "waiting")), (1.0, 2.0));
    // Counted every ten seconds or so: what was admitted at 0 s and at 10 s was looked at after 17 s and before 31 s.
    let age = |state| gauge("throughline_oldest_turn_age_seconds", state);
    assert!((17.0..31.0).contains(&age("running")), "{} s", age("running"));
    assert!((7.0..21.0).contains(&age("waiting")), "{} s", age("waiting"));
    for workflow in [&first, &others[0], &others[1]] {
        rig.saved(workflow).await;
    }
    rig.pass(MINUTE / 3).await;
    assert_eq!((gauge("throughline_turns", "running"), gauge("throughline_turns", "waiting")), (0.0, 0.0));
    assert_eq!((age("running"), age("waiting")), (0.0, 0.0));
}
