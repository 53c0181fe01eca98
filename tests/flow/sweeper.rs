//! Turns on which nobody works are resumed; turns that are slow are not.

use std::time::Duration;

use throughline_actors::ports::memory::{model::answer, script::Reply};
use throughline_schemas::{EventType, FailureCode, StageName};

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, reply_to};

const MINUTE: Duration = Duration::from_mins(1);

fn resumed(rig: &Rig) -> u64 {
    rig.meters.count("throughline_turns_resumed_total", &[])
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_started_and_never_published_is_published() {
    // The first turn is saved, which starts the second; the process dies before it says so. What it had in hand comes
    // again only after the ack wait, which is an hour.
    let mut rig = Rig::new();
    rig.settings.ack_wait = MINUTE * 60;
    rig.bus = throughline_actors::ports::memory::bus::MemoryBus::with_ack_wait(
        rig.bus.namespace().clone(),
        rig.settings.ack_wait,
    );
    let doomed = rig.worker().await;
    doomed.gate.once(Op::Save, "w1", Act::DieAfter);
    let first = rig.publish("w1", "s1", "hello");
    let second = rig.publish("w2", "s1", "and then?");
    doomed.gate.died().await;
    let died = rig.seconds();
    let _other = rig.worker().await;
    rig.saved(&second).await;
    let took = rig.seconds() - died;
    assert!(took < 30.0, "{took} s");
    assert_eq!(rig.types(&second), JOURNEY);
    assert_eq!((rig.models.calls(PROVIDER), resumed(&rig)), (2, 1));
    // The first one's answer is in the database; its end is told when its delivery comes again.
    rig.saved(&first).await;
    assert_eq!(rig.models.calls(PROVIDER), 2);
}

/// The log loses what came behind `keep`, an event of the first workflow; the model has been asked `calls` times for
/// each of three by then, and may be asked again if its answer has vanished.
async fn rolled_back_to(keep: EventType) {
    let rig = Rig::new();
    let worker = rig.worker().await;
    // Three turns come as far as their answer, and no end is reached.
    worker.gate.on(|op, _| if op == Op::Save { Act::Lost } else { Act::Go });
    let workflows: Vec<_> =
        (0..3).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    let next = rig.publish("next", "s0", "and then?");
    rig.pass(Duration::from_secs(2)).await;
    assert_eq!(rig.models.calls(PROVIDER), 3);
    let stored = rig.bus.stored();
    let of_type = |stored: &&throughline_actors::ports::memory::bus::Stored| {
        stored.subject.contains(&format!(".{keep}"))
    };
    let last = stored.iter().rfind(of_type).expect("an event of this type").sequence;
    worker.gate.on(|_, _| Act::Go);
    worker.crash();
    rig.bus.roll_back(last);
    let _other = rig.worker().await;
    for workflow in workflows.iter().chain([&next]) {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{keep}: {workflow}");
    }
    assert_eq!(rig.store.interactions(), 4);
    let calls = rig.models.calls(PROVIDER);
    assert!(calls <= 7, "{keep}: {calls} calls");
    rig.pass(ACK_WAIT * 3).await;
    assert_eq!(rig.models.calls(PROVIDER), calls, "{keep}: nothing is done again later");
}

#[tokio::test(start_paused = true)]
async fn turns_whose_events_have_vanished_from_the_log_are_resumed_where_they_are() {
    for keep in [
        EventType::UserInputReceived,
        EventType::InputValidated,
        EventType::ContextRetrieved,
        EventType::ExternalDataFetched,
        EventType::ResponseGenerated,
    ] {
        rolled_back_to(keep).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_forgets_while_it_is_in_use_is_noticed() {
    let (rig, worker) = Rig::running().await;
    rig.models.otherwise(PROVIDER, |request| Reply::After(MINUTE, Ok(answer(&reply_to(request)))));
    let slow = rig.publish("slow", "s1", "hello");
    rig.pass(MINUTE / 2).await;
    assert_eq!(rig.types(&slow).last(), Some(&EventType::ExternalDataFetched));
    // The process that had it in hand dies with the log's memory of it.
    worker.crash();
    let _other = rig.worker().await;
    rig.pass(Duration::from_secs(25)).await;
    let to =
        rig.bus.stored().iter().find(|stored| stored.subject.contains("context_retrieved")).unwrap().sequence;
    rig.bus.roll_back(to);
    rig.saved(&slow).await;
    assert_eq!(rig.types(&slow), JOURNEY);
    assert!(resumed(&rig) >= 1);
}

#[tokio::test(start_paused = true)]
async fn slow_turns_are_left_alone_however_many_processes_sweep() {
    let rig = Rig::new();
    let _workers = [rig.worker().await, rig.worker().await, rig.worker().await];
    rig.models.otherwise(PROVIDER, |request| Reply::After(MINUTE * 20, Ok(answer(&reply_to(request)))));
    let workflows: Vec<_> =
        (0..300).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY);
    }
    assert_eq!((rig.models.calls(PROVIDER), resumed(&rig)), (300, 0));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_takes_too_long_fails_and_its_session_goes_on() {
    let mut rig = Rig::new();
    rig.settings.sessions.sweep.turn_limit = MINUTE * 5;
    let _worker = rig.worker().await;
    rig.models.push(PROVIDER, Reply::Never);
    let stuck = rig.publish("w1", "s1", "hello");
    let next = rig.publish("w2", "s1", "are you there?");
    let failed = rig.failed(&stuck).await;
    assert_eq!((failed.code, failed.stage), (FailureCode::Stalled, StageName::Generation));
    assert!(failed.message.contains("sessions.turn_limit_ms"), "{}", failed.message);
    assert!((300.0..330.0).contains(&rig.seconds()), "{} s", rig.seconds());
    rig.saved(&next).await;
    assert_eq!(rig.types(&next), JOURNEY);
    rig.pass(MINUTE).await;
    assert_eq!(rig.models.in_flight(), 0, "nobody waits for the stalled call any more");
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn an_idle_sweeper_asks_the_bus_next_to_nothing() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
    // Until it has noted that the log is in the database up to there.
    rig.pass(MINUTE * 2).await;
    let (latest, positions) = (std::sync::Arc::clone(&asked), std::sync::Arc::default());
    let count: std::sync::Arc<std::sync::atomic::AtomicUsize> = std::sync::Arc::clone(&positions);
    worker.gate.on(move |op, _| {
        if matches!(op, Op::Latest | Op::PublishAgain) {
            latest.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        } else if op == Op::Position {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Act::Go
    });
    rig.pass(MINUTE * 10).await;
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
    // Where the log ends is asked now and then, to move the database's mark along.
    let positions = positions.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=2).contains(&positions), "{positions}");
}

/// A publisher that repeats itself must not hide that everything behind its message has vanished.
#[tokio::test(start_paused = true)]
async fn an_input_that_is_repeated_hides_no_loss() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    worker.gate.on(|op, _| if op == Op::Generate { Act::Die } else { Act::Go });
    let workflow = rig.publish("w1", "s1", "hello");
    worker.gate.died().await;
    let stored = rig.bus.stored();
    let validated = stored.iter().find(|stored| stored.subject.contains("input_validated")).unwrap().sequence;
    rig.bus.roll_back(validated);
    let again = serde_json::json!({
        "specversion": "1.0", "id": "again", "source": "/tests", "type": "user_input_received",
        "time": "2026-01-01T00:00:00Z", "datacontenttype": "application/json",
        "dataschema": "urn:throughline:event:user_input_received:v1", "workflowid": "w1", "sessionid": "s1",
        "userid": "ada", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "data": {"user_id": "ada", "session_id": "s1", "user_input": "hello", "workflow_id": "w1"},
    });
    rig.bus.publish_raw("throughline.v1.user_input_received.s1.w1", &[], again.to_string());
    let _other = rig.worker().await;
    rig.saved(&workflow).await;
    assert!(rig.seconds() < 120.0, "{} s", rig.seconds());
    assert!(resumed(&rig) >= 1);
}
