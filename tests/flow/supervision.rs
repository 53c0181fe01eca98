//! Stages that end, engines that give up, workers that are asked to stop, and how much is ever in hand.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use throughline_actors::delivery::stage::Drained;
use throughline_actors::ports::{
    bus::Broadcast,
    memory::{model::answer, script::Reply},
};
use throughline_schemas::StageName;

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, reply_to};

const SECOND: Duration = Duration::from_secs(1);

fn slow_model(rig: &Rig, takes: Duration) {
    rig.models.otherwise(PROVIDER, move |request| Reply::After(takes, Ok(answer(&reply_to(request)))));
}

#[tokio::test(start_paused = true)]
async fn a_stage_whose_inbox_breaks_is_back_in_a_moment() {
    let (rig, worker) = Rig::running().await;
    slow_model(&rig, SECOND * 10);
    let under_way = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    worker.gate.once(Op::Next, "generation", Act::Lost);
    let trigger = rig.publish("w2", "s2", "hello");
    rig.pass(Duration::from_millis(20)).await;
    let down: Vec<_> = worker.engine.status().await.into_iter().filter(|(_, up)| !up).collect();
    assert_eq!(down, [(StageName::Generation, false)], "readiness tells the truth");
    rig.saved(&trigger).await;
    rig.saved(&under_way).await;
    assert!(worker.engine.status().await.iter().all(|(_, up)| *up));
    assert!(
        rig.seconds() < 12.0,
        "what it held came again at once, not after the ack wait: {} s",
        rig.seconds()
    );
    assert_eq!(rig.meters.count("throughline_stage_restarts_total", &[("stage", "generation")]), 1);
    for workflow in [&under_way, &trigger] {
        assert_eq!(rig.types(workflow), JOURNEY);
    }
    rig.pass(ACK_WAIT * 2).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_stage_that_cannot_open_its_inbox_is_restarted_with_longer_and_longer_waits_until_the_engine_gives_up()
 {
    let (rig, mut worker) = Rig::running().await;
    let opened: Arc<std::sync::Mutex<Vec<f64>>> = Arc::default();
    let (noted, start) = (Arc::clone(&opened), tokio::time::Instant::now());
    worker.gate.on(move |op, about| match op {
        Op::Next if about == "context" => Act::Lost,
        Op::Open => {
            noted.lock().unwrap().push(start.elapsed().as_secs_f64());
            Act::Lost
        }
        _ => Act::Go,
    });
    rig.publish("w1", "s1", "hello"); // the inbox that waits now is asked again after this one
    tokio::time::timeout(SECOND * 60, worker.engine.gave_up()).await.expect("the engine should give up");
    let at = opened.lock().unwrap().clone();
    assert_eq!(at.len(), 5, "five restarts are allowed: {at:?}");
    let waits: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 1.5), "each wait is longer: {waits:?}");
    assert!(worker.engine.status().await.is_empty(), "nothing is consuming any more");
    // Another worker goes on with what this one left.
    let _other = rig.worker().await;
    rig.saved(&crate::harness::id("w1")).await;
}

#[tokio::test(start_paused = true)]
async fn restarts_that_are_far_apart_are_no_reason_to_give_up() {
    let (rig, mut worker) = Rig::running().await;
    for n in 0..12 {
        worker.gate.once(Op::Next, "context", Act::Lost);
        rig.saved(&rig.publish(&format!("w{n}"), "s1", "hello")).await;
        let gave_up = tokio::time::timeout(SECOND * 20, worker.engine.gave_up()).await.is_ok();
        assert!(!gave_up, "after {n} restarts, 20 s apart");
    }
    assert_eq!(rig.meters.count("throughline_stage_restarts_total", &[]), 12);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_cannot_open_its_inboxes_says_so_at_once() {
    let rig = Rig::new();
    rig.bus.set_connected(false);
    let error = rig.try_worker(rig.gate()).await.err().expect("it should not start");
    assert!(error.to_string().contains("did not answer"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn draining_finishes_what_is_in_hand_and_takes_nothing_more() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    slow_model(&rig, SECOND * 5);
    let in_hand: Vec<_> = (0..20).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    rig.pass(SECOND).await;
    let drained = worker.drain(SECOND * 10).await;
    assert_eq!(drained, Drained { finished: 20, handed_back: 0 });
    assert!((5.0..5.1).contains(&rig.seconds()), "as long as the work takes: {} s", rig.seconds());
    assert_eq!(rig.models.calls(PROVIDER), 20);

    let late = rig.publish("late", "s1", "hello");
    rig.pass(ACK_WAIT * 3).await;
    assert!(rig.types(&late).is_empty(), "nothing more is taken");
    rig.assert_idle();
    let _other = rig.worker().await;
    for workflow in in_hand.iter().chain([&late]) {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY);
    }
    assert_eq!(rig.meters.count("throughline_redeliveries_total", &[]), 0, "no finished work comes again");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_within_the_grace_period_is_handed_back_and_taken_up_at_once() {
    let mut rig = Rig::new();
    rig.settings.stages.get_mut(&StageName::Generation).unwrap().concurrency = 12;
    let worker = rig.worker().await;
    slow_model(&rig, SECOND * 60);
    let workflows: Vec<_> =
        (0..12).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    rig.pass(SECOND).await;
    let drained = worker.drain(SECOND * 3).await;
    assert_eq!(drained, Drained { finished: 0, handed_back: 12 });
    rig.assert_idle();
    assert!((4.0..4.1).contains(&rig.seconds()), "no longer than the grace period: {} s", rig.seconds());
    slow_model(&rig, SECOND);
    let _other = rig.worker().await;
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY);
    }
    assert!(rig.seconds() < 6.0, "at once, not after the ack wait: {} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn draining_hands_back_what_is_queued_in_the_stage() {
    let mut rig = Rig::new();
    rig.settings.stages.get_mut(&StageName::Input).unwrap().concurrency = 50;
    let worker = rig.worker().await;
    // The first admission takes a while; what comes meanwhile waits in the stage.
    worker.gate.once(Op::Admit, "w0", Act::Slow(SECOND * 5));
    rig.publish("w0", "s0", "hello");
    rig.pass(SECOND).await;
    for n in 1..30 {
        rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
    }
    rig.pass(SECOND).await;
    let drained = worker.drain(SECOND * 10).await;
    assert_eq!(drained, Drained { finished: 1, handed_back: 29 });
    let _other = rig.worker().await;
    for n in 0..30 {
        rig.saved(&crate::harness::id(&format!("w{n}"))).await;
    }
    assert!(rig.seconds() < 6.0, "{} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_drained_may_exit() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    slow_model(&rig, SECOND * 60);
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    // Handing back takes a while; the answer to the drain must not overtake it.
    worker.gate.once(Op::Settle, "Retried", Act::Slow(SECOND));
    let gate = worker.gate.clone();
    worker.drain(SECOND).await;
    gate.die();
    slow_model(&rig, SECOND);
    let _other = rig.worker().await;
    rig.saved(&workflow).await;
    assert!(rig.seconds() < 6.0, "it was handed back before the process ended: {} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn no_more_is_in_hand_than_there_are_slots() {
    let mut rig = Rig::new();
    for stage in rig.settings.stages.values_mut() {
        stage.concurrency = 4;
    }
    let worker = rig.worker().await;
    slow_model(&rig, SECOND);
    let (most, bus) = (Arc::new(AtomicUsize::new(0)), rig.bus.clone());
    let noted = Arc::clone(&most);
    worker.gate.on(move |_, _| {
        let in_hand = StageName::ALL.map(|stage| bus.in_hand(stage)).into_iter().max().unwrap_or(0);
        noted.fetch_max(in_hand, Ordering::Relaxed);
        Act::Go
    });
    let workflows: Vec<_> =
        (0..100).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    assert_eq!(rig.models.peak_in_flight(), 4, "four calls at a time, no more and no fewer");
    assert_eq!(most.load(Ordering::Relaxed), 4, "the bus hands out what was granted");
    assert!(
        (25.0..26.0).contains(&rig.seconds()),
        "100 calls of a second, four at a time: {} s",
        rig.seconds()
    );
}

#[tokio::test(start_paused = true)]
async fn slots_that_wait_for_a_redelivery_are_not_lost() {
    // With two slots, lose more of everything than there are slots: credit must come back each time.
    let mut rig = Rig::new();
    for stage in rig.settings.stages.values_mut() {
        stage.concurrency = 2;
    }
    let worker = rig.worker().await;
    let turn = AtomicUsize::new(0);
    worker.gate.on(move |op, _| match (op, turn.fetch_add(1, Ordering::Relaxed) % 7) {
        (Op::Generate | Op::Admit | Op::Context | Op::Save, 0) => Act::Panic,
        (Op::Settle, 1 | 2) => Act::Lost,
        _ => Act::Go,
    });
    let workflows: Vec<_> =
        (0..40).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.ended(workflow).await;
    }
    worker.gate.on(|_, _| Act::Go);
    rig.pass(ACK_WAIT * 3).await;
    rig.assert_idle();
    let before = rig.models.requests().len();
    slow_model(&rig, SECOND * 10);
    for n in 0..10 {
        rig.publish(&format!("again{n}"), &format!("t{n}"), "hello");
    }
    rig.pass(SECOND).await;
    assert_eq!(rig.models.requests().len() - before, 2, "both slots are there");
}

#[tokio::test(start_paused = true)]
async fn an_intake_that_panics_is_noticed_and_its_stage_restarted() {
    let (rig, worker) = Rig::running().await;
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
    // The inbox is asked again when this delivery has been taken.
    worker.gate.once(Op::Next, "generation", Act::Panic);
    rig.saved(&rig.publish("w2", "s2", "hello")).await;
    rig.pass(SECOND).await;
    rig.saved(&rig.publish("w3", "s3", "hello")).await;
    assert!(rig.seconds() < 3.0, "{} s", rig.seconds());
    assert_eq!(rig.meters.count("throughline_stage_restarts_total", &[("stage", "generation")]), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_without_the_announcer_of_breakers() {
    let (rig, mut worker) = Rig::running().await;
    let down = throughline_actors::ports::model::ModelError::Unreachable("injected".to_owned());
    rig.models.always(PROVIDER, Err(throughline_actors::ports::memory::model::failure(down)));
    worker.gate.on(|op, _| if op == Op::Announce { Act::Panic } else { Act::Go });
    for n in 0..5 {
        rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
    }
    tokio::time::timeout(SECOND * 60, worker.engine.gave_up()).await.expect("the engine should give up");
}

/// Waits until the engine gives up; says why.
async fn gave_up(worker: &mut crate::harness::Worker) -> String {
    tokio::time::timeout(SECOND * 60, worker.engine.gave_up()).await.expect("the engine should give up")
}

#[tokio::test(start_paused = true)]
async fn a_sweeper_that_ends_is_noticed_and_started_again() {
    let (rig, worker) = Rig::running().await;
    let (sweeps, broken) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let swept = Arc::clone(&sweeps);
    // Only the sweeper asks for chance while nothing fails: when to sweep next.
    worker.gate.on(move |op, _| match op {
        Op::Chance if broken.fetch_add(1, Ordering::Relaxed) == 0 => Act::Panic,
        Op::Running => {
            swept.fetch_add(1, Ordering::Relaxed);
            Act::Go
        }
        _ => Act::Go,
    });
    rig.pass(SECOND * 60).await;
    assert!(sweeps.load(Ordering::Relaxed) >= 4, "it sweeps every 10 s or so: {sweeps:?}");
    assert_eq!(rig.meters.count("throughline_stage_restarts_total", &[("stage", "sweeper")]), 1);
    assert!(worker.engine.status().await.iter().all(|(_, up)| *up));
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_without_a_sweeper() {
    let (_rig, mut worker) = Rig::running().await;
    worker.gate.on(|op, _| if op == Op::Chance { Act::Panic } else { Act::Go });
    let why = gave_up(&mut worker).await;
    assert!(why.contains("the sweeper failed 6 times"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_listener_for_interruptions_that_ends_is_noticed_and_started_again() {
    let mut rig = Rig::new();
    slow_model(&rig, SECOND * 60);
    // What is admitted here is generated there, so it hears of interruptions only from the bus.
    let all = rig.settings.stages.clone();
    rig.settings.stages.retain(|stage, _| *stage != StageName::Generation);
    let _admits = rig.worker().await;
    rig.settings.stages = all;
    rig.settings.stages.retain(|stage, _| *stage == StageName::Generation);
    let generates = rig.worker().await;
    generates.gate.once(Op::Listen, "interrupt", Act::Panic);
    let interrupt = |workflow: &str| {
        let body = format!(
            r#"{{"user_id":"ada","session_id":"s","workflow_id":"{workflow}","user_input":"stop","when_busy":"interrupt"}}"#
        );
        rig.publish_raw(&[], &body);
    };
    let first = rig.publish("w1", "s", "hello");
    rig.pass(SECOND).await;
    interrupt("w2");
    rig.failed(&first).await;
    // That one was lost; the next one is heard.
    rig.pass(SECOND * 5).await;
    let before = rig.models.in_flight();
    interrupt("w3");
    rig.failed(&crate::harness::id("w2")).await;
    rig.pass(SECOND).await;
    assert_eq!(rig.models.in_flight(), before, "one call was dropped, another made");
    assert_eq!(rig.meters.count("throughline_stage_restarts_total", &[("stage", "listener")]), 1);
    rig.saved(&crate::harness::id("w3")).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_on_without_a_listener_for_interruptions() {
    let (rig, mut worker) = Rig::running().await;
    worker.gate.on(|op, _| if op == Op::Listen { Act::Panic } else { Act::Go });
    let bus = rig.bus.clone();
    let noise = tokio::spawn(async move {
        loop {
            let _ = bus.announce("interrupt", bytes::Bytes::from_static(b"{}")).await;
            tokio::time::sleep(SECOND / 10).await;
        }
    });
    let why = gave_up(&mut worker).await;
    noise.abort();
    assert!(why.contains("the listener failed 6 times"), "{why}");
}
