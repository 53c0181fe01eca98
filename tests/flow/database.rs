//! The database goes away for a while: nothing fails, nothing is lost, no answer is paid for twice.

use std::time::Duration;

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
    assert!(late < 65.0, "{ops:?} away for {outage:?}: over {late} s after its return");
    rig.pass(ACK_WAIT * 2).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn while_inputs_are_admitted() {
    away(&[Op::Admit], Duration::from_secs(120), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn while_context_is_read() {
    away(&[Op::Context], Duration::from_secs(120), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn while_interactions_are_saved() {
    away(&[Op::Save], Duration::from_secs(120), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn for_a_moment_everywhere() {
    away(&[Op::Admit, Op::Context, Op::Save, Op::Fail], Duration::from_secs(3), Act::Lost).await;
}

#[tokio::test(start_paused = true)]
async fn for_longer_than_a_worker_waits() {
    away(&[Op::Admit, Op::Context, Op::Save, Op::Fail], Duration::from_secs(1_500), Act::Lost).await;
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
    rig.pass(Duration::from_secs(300)).await;
    let calls = calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(calls <= 30 + 10, "all were under way at first, then one probe every 30 s, not {calls} calls");
    assert_eq!(
        rig.meters.gauge("throughline_breaker_state", &[("dependency", "database"), ("stage", "input")]),
        Some(0.0),
        "each stage has its own view"
    );
}
