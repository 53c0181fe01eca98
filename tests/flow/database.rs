//! The database goes away for a while: nothing fails, nothing is lost, no answer is paid for twice.

use std::time::Duration;

use serde_json::Value;
use throughline_actors::{
    dependency::vitals::{DependencyKind, Trouble},
    policy::limits::STORE_PATIENCE,
};
use throughline_schemas::StageName;
use tokio::time::Instant;

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig};

/// `ops` fail for `outage`; thirty workflows of ten sessions get through all the same.
async fn away(ops: &'static [Op], outage: Duration, act: Act) {
    let (rig, worker) = Rig::running().await;
    let start = Instant::now();
    worker.gate.on(move |op, _| if ops.contains(&op) && start.elapsed() < outage { act } else { Act::Go });
    let workflows: Vec<_> =
        (0..30).map(|n| rig.publish(&format!("w{n}"), &format!("s{}", n % 10), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{ops:?} away for {outage:?}");
    }
    assert_eq!(rig.models.calls(PROVIDER), 30, "{ops:?} away for {outage:?}: each answer is paid for once");
    assert_eq!(rig.store.interactions(), 30);
    assert!(rig.bus.dead_letters().is_empty());
    let late = rig.seconds() - outage.as_secs_f64();
    let most = if outage > STORE_PATIENCE { 3.0 } else { 2.5 };
    assert!(late < most, "{ops:?} away for {outage:?}: over {late} s after its return");
    rig.pass(ACK_WAIT * 2).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn while_inputs_are_admitted() {
    away(&[Op::Admit], Duration::from_mins(2), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn while_context_is_read() {
    away(&[Op::Context], Duration::from_mins(2), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn while_interactions_are_saved() {
    away(&[Op::Save], Duration::from_mins(2), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn for_a_moment_everywhere() {
    away(&[Op::Admit, Op::Context, Op::Save, Op::Fail], Duration::from_secs(3), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn for_longer_than_a_worker_waits() {
    away(&[Op::Admit, Op::Context, Op::Save, Op::Fail], Duration::from_mins(25), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn when_it_did_what_was_asked_and_its_answers_are_lost() {
    away(&[Op::Admit, Op::Context, Op::Save, Op::Fail], Duration::from_secs(20), Act::Unanswered).await;
}

#[tokio::test(start_paused = true)]
async fn its_breaker_spares_it_while_it_is_away() {
    let (rig, worker) = Rig::running().await;
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&calls);
    worker.gate.on(move |op, _| {
        if op == Op::Context {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Act::Lost;
        }
        Act::Go
    });
    for n in 0..30 {
        rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
    }
    rig.pass(Duration::from_mins(5)).await;
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls <= 30 + 300, "all were under way at first, then one probe a second, not {calls} calls");
    assert_eq!(
        rig.meters.gauge("throughline_breaker_state", &[("dependency", "database"), ("stage", "input")]),
        Some(0.0),
        "each stage has its own view"
    );
}

/// The rest of the session, other sessions and new inputs go on as soon as the database is back, not when a breaker or a
/// backoff that was chosen for models says so.
#[tokio::test(start_paused = true)]
async fn work_goes_on_within_a_second_of_its_return() {
    let (rig, worker) = Rig::running().await;
    let start = Instant::now();
    let outage = Duration::from_mins(2);
    worker.gate.on(
        move |op, _| {
            if op == Op::Admit && start.elapsed() < outage { Act::Lost } else { Act::Go }
        },
    );
    let workflows: Vec<_> =
        (0..5).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    let late = rig.seconds() - outage.as_secs_f64();
    assert!(late < 1.5, "{late} s after its return");
}

#[tokio::test(start_paused = true)]
async fn its_trouble_is_known_with_its_cause_from_the_first_failure_until_it_is_over() {
    let (rig, worker) = Rig::running().await;
    let start = Instant::now();
    let outage = Duration::from_mins(1);
    worker.gate.on(move |op, _| if op == Op::Save && start.elapsed() < outage { Act::Lost } else { Act::Go });
    let observer = worker.engine.observer();
    assert!(observer.troubles().is_empty());
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(Duration::from_secs(1)).await;
    let [Trouble { stage, dependency, kind, is_open, cause, since, .. }] = &observer.troubles()[..] else {
        panic!("{:?}", observer.troubles())
    };
    assert_eq!((*stage, &**dependency, *kind), (StageName::Persistence, "database", DependencyKind::Store));
    assert_eq!((*is_open, cause.class), (false, "unreachable"));
    assert!(cause.text.starts_with("the database cannot be reached: injected; start it"), "{}", cause.text);
    let since = *since;
    rig.pass(Duration::from_secs(20)).await;
    let troubles = observer.troubles();
    assert!(troubles[0].is_open && troubles[0].since == since, "{troubles:?}");
    let labels = [("class", "unreachable"), ("dependency", "database"), ("stage", "persistence")];
    assert_eq!(rig.meters.gauge("throughline_breaker_open_cause", &labels), Some(1.0));
    let told =
        rig.bus.announcements().into_iter().map(|(_, body)| serde_json::from_slice::<Value>(&body).unwrap());
    let opened = told.into_iter().find(|moved| moved["to"] == "open").expect("an open breaker is announced");
    assert_eq!(
        (&opened["class"], &opened["dependency"]),
        (&Value::from("unreachable"), &Value::from("database"))
    );
    assert!(opened["cause"].as_str().is_some_and(|cause| cause.contains("cannot be reached")), "{opened}");
    rig.saved(&workflow).await;
    let told =
        rig.bus.announcements().into_iter().map(|(_, body)| serde_json::from_slice::<Value>(&body).unwrap());
    let states: Vec<_> = told.map(|moved| moved["to"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["open", "closed"], "a probe each second is not told each time");
    assert!(observer.troubles().is_empty());
    assert_eq!(rig.meters.gauge("throughline_breaker_open_cause", &labels), Some(0.0));
}
