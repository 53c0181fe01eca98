//! Turns of one session run one at a time and in order; sessions do not wait for each other.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use throughline_actors::ports::memory::{
    model::{answer, failure},
    script::Reply,
};
use throughline_actors::ports::model::ModelError;
use throughline_schemas::FailureCode;

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, question, reply_to, splitmix};

#[tokio::test(start_paused = true)]
async fn twenty_messages_published_at_once_run_one_at_a_time_and_in_order() {
    let (rig, _worker) = Rig::running().await;
    let random = AtomicU64::new(7);
    rig.models.otherwise(PROVIDER, move |request| {
        Reply::After(Duration::from_millis(splitmix(&random) % 3_000), Ok(answer(&reply_to(request))))
    });
    let workflows: Vec<_> =
        (0..20).map(|n| rig.publish(&format!("w{n}"), "s1", &format!("message {n}"))).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}");
    }
    let asked: Vec<_> = rig.models.requests().iter().map(question).collect();
    let expected: Vec<_> = (0..20).map(|n| format!("message {n}")).collect();
    assert_eq!(asked, expected, "the order of the stream");
    assert_eq!(rig.models.peak_in_flight(), 1, "one at a time");
    // Each turn saw the one before it.
    let last = &rig.models.requests()[19].messages;
    assert!(last.iter().any(|message| message.content == "re: message 18"), "{last:#?}");
}

#[tokio::test(start_paused = true)]
async fn sessions_run_side_by_side() {
    let (rig, _worker) = Rig::running().await;
    let minute = Duration::from_mins(1);
    rig.models.otherwise(PROVIDER, move |request| Reply::After(minute, Ok(answer(&reply_to(request)))));
    let workflows: Vec<_> =
        (0..30).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    assert_eq!(rig.models.peak_in_flight(), 30);
    assert!(rig.seconds() < 61.0, "thirty calls of a minute took {} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn a_failed_turn_frees_its_session() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::ContextTooLong("9000 tokens".to_owned())))));
    let first = rig.publish("w1", "s1", "too long");
    let invalid = rig.publish("w2", "s1", "");
    let third = rig.publish("w3", "s1", "hello");
    assert_eq!(rig.failed(&first).await.code, FailureCode::ModelRejected);
    assert_eq!(rig.failed(&invalid).await.code, FailureCode::InvalidInput);
    rig.saved(&third).await;
    assert!(rig.seconds() < 1.0, "nobody had to wait: {} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_when_the_end_of_a_turn_was_published_and_its_worker_died_before_the_next_was_released()
 {
    // The turn fails, `workflow_failed` is out, and the process dies before it publishes the next turn's
    // `input_validated`. The database says that the next turn runs, so nobody else would start it.
    let rig = Rig::new();
    let doomed = rig.worker().await;
    rig.models.push(
        PROVIDER,
        Reply::After(Duration::from_secs(5), Err(failure(ModelError::Credentials(String::new())))),
    );
    let first = rig.publish("w1", "s1", "fails");
    let second = rig.publish("w2", "s1", "waits");
    doomed.gate.once(Op::Publish, "workflow_failed", Act::DieAfter);
    doomed.gate.died().await;
    assert_eq!(rig.failed(&first).await.code, FailureCode::ModelRejected);
    let _other = rig.worker().await;
    rig.saved(&second).await;
    assert_eq!(rig.models.calls(PROVIDER), 2, "the failed turn is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_recorded_as_failed_ends_as_failed_even_if_its_worker_died_before_saying_so() {
    // The database has it as failed, nothing is published, the process dies. The next worker asks the model again
    // and gets an answer this time; it cannot be saved, and the workflow must end all the same.
    let rig = Rig::new();
    let doomed = rig.worker().await;
    rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::Credentials(String::new())))));
    doomed.gate.once(Op::Fail, "w1", Act::DieAfter);
    let first = rig.publish("w1", "s1", "fails");
    let second = rig.publish("w2", "s1", "waits");
    doomed.gate.died().await;
    let _other = rig.worker().await;
    rig.failed(&first).await;
    rig.saved(&second).await;
    assert_eq!(rig.store.interactions(), 1, "what failed has no row");
}

#[tokio::test(start_paused = true)]
async fn an_input_that_cannot_be_published_fails_and_frees_its_session() {
    let (rig, worker) = Rig::running().await;
    worker.gate.refuse("too large to publish");
    let first = rig.publish("w1", "s1", "hello");
    let second = rig.publish("w2", "s1", "too large to publish");
    let third = rig.publish("w3", "s1", "hello");
    rig.saved(&first).await;
    assert_eq!(rig.failed(&second).await.code, FailureCode::ResultTooLarge);
    rig.saved(&third).await;
    assert_eq!(rig.types(&first), JOURNEY, "whoever released the turn is not to blame");
    assert!(
        rig.bus.dead_letters().is_empty(),
        "a waiting turn that cannot start is no fault of the turn before it"
    );

    let alone = rig.publish("w4", "s2", "too large to publish");
    let next = rig.publish("w5", "s2", "hello");
    assert_eq!(rig.failed(&alone).await.code, FailureCode::ResultTooLarge);
    rig.saved(&next).await;
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_when_two_workers_share_everything() {
    let rig = Rig::new();
    let (_a, _b) = (rig.worker().await, rig.worker().await);
    let random = AtomicU64::new(3);
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&asked);
    rig.models.otherwise(PROVIDER, move |request| {
        heard.lock().unwrap().push(question(request));
        Reply::After(Duration::from_millis(splitmix(&random) % 500), Ok(answer("yes")))
    });
    let mut workflows = Vec::new();
    for n in 0..10 {
        for session in ["s1", "s2", "s3"] {
            workflows.push(rig.publish(&format!("{session}-{n}"), session, &format!("{session} {n}")));
        }
    }
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}");
    }
    for session in ["s1", "s2", "s3"] {
        let asked = asked.lock().unwrap();
        let of_session: Vec<_> = asked.iter().filter(|text| text.starts_with(session)).cloned().collect();
        let expected: Vec<_> = (0..10).map(|n| format!("{session} {n}")).collect();
        assert_eq!(of_session, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_order_when_the_process_that_admits_dies_with_inputs_in_its_hands() {
    let rig = Rig::new();
    let doomed = rig.worker().await;
    let _other = rig.worker().await;
    doomed.gate.once(Op::Admit, "s0-1", Act::Die);
    let first: Vec<_> = (0..3).map(|s| rig.publish(&format!("s{s}-0"), &format!("s{s}"), "0")).collect();
    for workflow in &first {
        rig.saved(workflow).await;
    }
    let mut workflows = Vec::new();
    for n in 1..4 {
        for s in 0..3 {
            workflows.push(rig.publish(&format!("s{s}-{n}"), &format!("s{s}"), &format!("{s} {n}")));
        }
    }
    doomed.gate.died().await;
    let died = rig.seconds();
    // Whoever admits now is given these at once, and the others only after the ack wait.
    for n in 4..8 {
        for s in 0..3 {
            workflows.push(rig.publish(&format!("s{s}-{n}"), &format!("s{s}"), &format!("{s} {n}")));
        }
    }
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}");
    }
    let took = rig.seconds() - died;
    assert!(took < 10.0, "nobody waits for the ack wait: {took} s");
    let asked: Vec<_> = rig.models.requests().iter().map(question).collect();
    for s in 0..3 {
        let of_session: Vec<_> = asked.iter().filter(|text| text.starts_with(&format!("{s} "))).collect();
        let expected: Vec<_> = (1..8).map(|n| format!("{s} {n}")).collect();
        assert_eq!(of_session, expected.iter().collect::<Vec<_>>());
    }
    rig.pass(ACK_WAIT * 3).await;
    assert_eq!(rig.models.requests().len(), 24, "what came again after the ack wait changed nothing");
    rig.assert_idle();
}

/// The first turn ends with a commit, and whoever committed dies before saying so; the second message comes after that.
/// It finds its session free, and begins only behind the end of the first in the log.
async fn begins_behind_an_unpublished_end(op: Op) -> Vec<String> {
    let (rig, doomed) = Rig::running().await;
    if op == Op::Fail {
        rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::BadRequest("injected".to_owned())))));
    }
    doomed.gate.once(op, "w1", Act::DieAfter);
    let first = rig.publish("w1", "s1", "hello");
    doomed.gate.died().await;
    let second = rig.publish("w2", "s1", "and then?");
    let began = rig.seconds();
    let _other = rig.worker().await;
    rig.saved(&second).await;
    assert!(rig.seconds() - began < 20.0, "{} s", rig.seconds() - began);
    rig.pass(ACK_WAIT * 3).await;
    assert_eq!(rig.types(&second), JOURNEY);
    assert_eq!(rig.types(&first).iter().filter(|event| event.is_end()).count(), 1);
    rig.assert_idle();
    let stored = rig.bus.stored();
    let subjects = stored.iter().map(|stored| stored.subject.as_str());
    subjects.filter(|subject| !subject.contains("user_input_received")).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_turn_begins_behind_the_end_of_the_one_before_it_whichever_process_publishes_that() {
    for (op, end) in [(Op::Save, "interaction_saved"), (Op::Fail, "workflow_failed")] {
        let log = begins_behind_an_unpublished_end(op).await;
        let place = |event: &str, workflow: &str| {
            let subject = format!("throughline.v1.{event}.s1.{workflow}");
            log.iter()
                .position(|stored| *stored == subject)
                .unwrap_or_else(|| panic!("{subject} in {log:#?}"))
        };
        assert!(place(end, "w1") < place("input_validated", "w2"), "{log:#?}");
    }
}
