//! A wall clock that is wrong on one machine ends nobody's turn, and keeps none from being resumed.

use std::time::Duration;

use throughline_actors::ports::memory::{model::answer, script::Reply};
use throughline_schemas::{FailureCode, WorkflowId};

use crate::harness::{Act, JOURNEY, Op, PROVIDER, Rig, reply_to};

const MINUTE: Duration = Duration::from_mins(1);

fn slow(rig: &Rig, minutes: u32) {
    rig.models
        .otherwise(PROVIDER, move |request| Reply::After(MINUTE * minutes, Ok(answer(&reply_to(request)))));
}

fn publish(rig: &Rig, count: usize) -> Vec<WorkflowId> {
    (0..count).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect()
}

/// A second process, whose clock is so many hours ahead (or behind), sweeps beside the first.
async fn beside(hours: i64) {
    let rig = Rig::new();
    slow(&rig, 20);
    let _right = rig.worker().await;
    let workflows = publish(&rig, 20);
    rig.pass(MINUTE).await;
    let (_wrong, clock) = rig.worker_with_clock().await;
    clock.set_ahead_h(hours);
    // What it admits and starts itself has its own instants.
    rig.pass(MINUTE).await;
    let more: Vec<_> = (0..20).map(|n| rig.publish(&format!("m{n}"), &format!("s{n}"), "and?")).collect();
    for workflow in workflows.iter().chain(&more) {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{hours} h: {workflow}");
    }
    assert_eq!(rig.models.calls(PROVIDER), 40, "{hours} h");
}

#[tokio::test(start_paused = true)]
async fn a_second_process_with_another_time_ends_nobodys_turn() {
    for hours in [2, -2, 240] {
        beside(hours).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_while_it_runs_ends_nobodys_turn() {
    for hours in [2, -2, 240] {
        let rig = Rig::new();
        slow(&rig, 20);
        let (_worker, clock) = rig.worker_with_clock().await;
        let workflows = publish(&rig, 20);
        rig.pass(MINUTE).await;
        clock.set_ahead_h(hours);
        for workflow in &workflows {
            rig.saved(workflow).await;
        }
        assert_eq!(rig.models.calls(PROVIDER), 20, "{hours} h");
    }
}

/// The turn limit is what it says, whatever the clocks of those who start and sweep, also for a turn that a process did
/// not see begin.
#[tokio::test(start_paused = true)]
async fn a_turn_that_is_stuck_fails_after_its_limit_whatever_the_clocks_say() {
    for (first, second) in [(0, 2), (2, 0), (-2, 0), (0, -2)] {
        let mut rig = Rig::new();
        rig.settings.sessions.sweep.turn_limit = MINUTE * 30;
        let (worker, clock) = rig.worker_with_clock().await;
        clock.set_ahead_h(first);
        rig.models.push(PROVIDER, Reply::Never);
        let stuck = rig.publish("w1", "s1", "hello");
        let next = rig.publish("w2", "s1", "are you there?");
        rig.pass(MINUTE * 20).await;
        let (_other, clock) = rig.worker_with_clock().await;
        clock.set_ahead_h(second);
        // The one that has it in hand still reports it, and does not sweep any more.
        worker.gate.on(|op, _| if op == Op::Running { Act::Lost } else { Act::Go });
        assert_eq!(rig.failed(&stuck).await.code, FailureCode::Stalled);
        let (at, limit) = (rig.seconds(), 30.0 * 60.0);
        assert!((limit..limit + 30.0).contains(&at), "{first} {second}: {at} s");
        rig.saved(&next).await;
        assert_eq!(rig.types(&next), JOURNEY);
    }
}

/// A turn that was started by a process whose clock is behind comes before what sweepers have seen; by one whose clock
/// is ahead, it starts in the future. Both are resumed when their events vanish.
#[tokio::test(start_paused = true)]
async fn turns_of_a_process_with_another_time_are_resumed() {
    for hours in [2, -2] {
        let rig = Rig::new();
        let right = rig.worker().await;
        // It has seen a turn that started now.
        rig.models.push(PROVIDER, Reply::After(MINUTE * 5, Ok(answer("late"))));
        let seen = rig.publish("seen", "other", "hello");
        rig.pass(MINUTE).await;
        right.gate.on(|op, _| if op == Op::Admit { Act::Lost } else { Act::Go });
        let (wrong, clock) = rig.worker_with_clock().await;
        clock.set_ahead_h(hours);
        right.crash();
        wrong.gate.once(Op::Publish, "lost", Act::Die);
        let lost = rig.publish("lost", "s1", "hello");
        wrong.gate.died().await;
        let died = rig.seconds();
        let _sweeps = rig.worker().await;
        rig.saved(&lost).await;
        let took = rig.seconds() - died;
        assert!(took < 120.0, "{hours} h: {took} s");
        rig.saved(&seen).await;
    }
}
