//! Users that share what runs.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use throughline_actors::{
    ports::{
        memory::{model::answer, script::Reply, store::TurnState},
        store::Store,
    },
    workflow::users::{Calls, RunningLimit, UserSettings},
};
use throughline_schemas::{EventType, FailureCode, LiveFrame, LiveKind, StageName, WaitReason, WorkflowId};

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, id, question, reply_to, splitmix};

const SECOND: Duration = Duration::from_secs(1);
/// Calls of the model at once.
const CALLS: u32 = 8;

/// A world whose model takes a second, `CALLS` at a time.
fn rig(running: RunningLimit) -> Rig {
    let mut rig = Rig::new();
    rig.settings.stages.get_mut(&StageName::Generation).unwrap().concurrency = CALLS as usize;
    rig.settings.users = UserSettings { running, open: None, calls: Calls::new(CALLS) };
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND, Ok(answer(&reply_to(request)))));
    rig
}

fn fixed(turns: u32) -> RunningLimit {
    RunningLimit::Fixed(NonZeroU32::new(turns).unwrap())
}

/// A user says as much in as many sessions.
fn flood(rig: &Rig, user: &str, messages: usize) -> Vec<WorkflowId> {
    let say = |n| {
        let workflow = format!("{user}-{n}");
        rig.bus.publish_input(user, &workflow, &workflow, &workflow);
        id(&workflow)
    };
    (0..messages).map(say).collect()
}

/// How long one message of somebody else takes.
async fn one_message(rig: &Rig, workflow: &str) -> f64 {
    let began = rig.seconds();
    rig.bus.publish_input("ben", workflow, workflow, workflow);
    rig.saved(&id(workflow)).await;
    rig.seconds() - began
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_user_does_not_hold_up_another() {
    for heavy in [&["ada"][..], &["ada", "cid", "dan"]] {
        let rig = rig(RunningLimit::Shared);
        let _workers = [rig.worker().await, rig.worker().await];
        let alone = one_message(&rig, "alone").await;
        let mut flooding = Vec::new();
        for user in heavy {
            flooding.extend(flood(&rig, user, 240 / heavy.len()));
        }
        rig.pass(SECOND / 2).await;
        let began = rig.seconds();
        for n in 0..8 {
            let among = one_message(&rig, &format!("among-{n}")).await;
            assert!(among <= 2.0 * alone, "{among} s among others, {alone} s alone, {heavy:?}");
        }
        for workflow in &flooding {
            rig.saved(workflow).await;
            assert_eq!(rig.types(workflow), JOURNEY);
        }
        // One call is left to whoever has least.
        let rate = 240.0 / (rig.seconds() - began);
        assert!(rate > f64::from(CALLS - 1) * 0.9, "{rate} messages a second, {heavy:?}");
        assert!(rig.verify().await.is_empty());
        rig.assert_idle();
    }
}

/// Without shares the same message waits for all of them: what the others measure is no accident.
#[tokio::test(start_paused = true)]
async fn without_shares_a_flood_holds_up_everybody() {
    let rig = rig(RunningLimit::Unlimited);
    let _worker = rig.worker().await;
    flood(&rig, "ada", 160);
    rig.pass(SECOND / 2).await;
    let among = one_message(&rig, "among").await;
    assert!(among > 15.0, "{among} s");
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_for_a_turn_to_be_started() {
    for (running, messages) in [(RunningLimit::Shared, 168_u32), (RunningLimit::Unlimited, 168)] {
        let rig = rig(running);
        let _worker = rig.worker().await;
        let began = rig.seconds();
        for workflow in flood(&rig, "ada", messages as usize) {
            rig.saved(&workflow).await;
        }
        let took = rig.seconds() - began;
        let calls = if running == RunningLimit::Shared { CALLS - 1 } else { CALLS };
        let least = f64::from(messages) / f64::from(calls);
        assert!(took < least * 1.08, "{took} s, {least} s if no call waits, {running:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_for_its_share_says_so() {
    let rig = rig(fixed(1));
    let _worker = rig.worker().await;
    let all = flood(&rig, "ada", 3);
    rig.pass(SECOND / 2).await;
    let told = rig.bus.live_frames(&all[2]);
    let frames: Vec<LiveFrame> = told.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect();
    assert_eq!(
        (frames.len(), frames[0].kind, frames[0].why),
        (1, LiveKind::Waiting, Some(WaitReason::UserShare))
    );
    for workflow in &all {
        rig.saved(workflow).await;
    }
    assert!((3.0..3.5).contains(&rig.seconds()), "one after the other: {} s", rig.seconds());
    assert_eq!(rig.meters.count("throughline_held_turns_started_total", &[]), 2);
}

#[tokio::test(start_paused = true)]
async fn a_user_with_too_many_open_workflows_is_told_so() {
    let mut rig = rig(RunningLimit::Shared);
    rig.settings.users.open = NonZeroU32::new(3);
    let _worker = rig.worker().await;
    let all = flood(&rig, "ada", 5);
    for workflow in &all[3..] {
        let failed = rig.failed(workflow).await;
        assert_eq!((failed.code, failed.retryable), (FailureCode::TooManyOpen, true));
        assert!(failed.message.contains("users.open") && failed.message.contains('3'), "{failed:?}");
        assert_eq!(rig.types(workflow), [EventType::WorkflowFailed]);
    }
    assert!(rig.seconds() < 0.5, "at once");
    one_message(&rig, "others-may").await;
    for workflow in &all[..3] {
        rig.saved(workflow).await;
    }
    rig.bus.publish_input("ada", "later", "later", "later");
    rig.saved(&id("later")).await;
    // The message comes again, and is answered as before; and all of it can be made again.
    rig.bus.publish_input("ada", "ada-4", "ada-4", "ada-4");
    rig.pass(SECOND).await;
    assert_eq!(rig.types(&all[4]), [EventType::WorkflowFailed]);
    assert!(rig.verify().await.is_empty());
}

/// Whoever starts held turns may die before or after the commit, panic, or have no answer.
#[tokio::test(start_paused = true)]
async fn what_is_held_is_not_forgotten_whichever_process_dies() {
    for act in [Act::Die, Act::DieAfter, Act::Panic, Act::Lost, Act::Unanswered] {
        for (op, marker) in [(Op::StartHeld, ""), (Op::Publish, "input_validated ada-1")] {
            let rig = rig(fixed(1));
            let doomed = rig.worker().await;
            let all = flood(&rig, "ada", 4);
            rig.pass(SECOND / 2).await;
            doomed.gate.once(op, marker, act);
            rig.pass(SECOND * 2).await;
            let _other = rig.worker().await;
            for workflow in &all {
                rig.saved(workflow).await;
                assert_eq!(rig.types(workflow), JOURNEY, "{act:?} at {op:?}");
            }
            rig.pass(ACK_WAIT * 3).await;
            rig.assert_idle();
        }
    }
}

const SEEDS: u64 = 60;

/// Random users, sessions and shares: everything ends, sessions keep their order, and no user has more than its share.
#[test]
fn everything_ends_in_order_whatever_the_shares() {
    for seed in 0..SEEDS {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(random_users(seed));
    }
}

async fn random_users(seed: u64) {
    let dice = Arc::new(AtomicU64::new(seed));
    let below = |n: u64| splitmix(&dice) % n;
    let mut rig = Rig::seeded(seed);
    let share = 1 + u32::try_from(seed % 3).unwrap();
    rig.settings.users = UserSettings {
        running: if seed % 4 == 3 { RunningLimit::Shared } else { fixed(share) },
        open: None,
        calls: Calls::new(share),
    };
    for stage in rig.settings.stages.values_mut() {
        stage.concurrency = 1 + usize::try_from(below(6)).unwrap();
    }
    let asked: Arc<Mutex<BTreeMap<String, Vec<u64>>>> = Arc::default();
    let (heard, rolled) = (Arc::clone(&asked), Arc::clone(&dice));
    rig.models.otherwise(PROVIDER, move |request| {
        let text = question(request);
        let (session, n) = text.split_once(' ').unwrap();
        heard.lock().unwrap().entry(session.to_owned()).or_default().push(n.parse().unwrap());
        Reply::After(Duration::from_millis(splitmix(&rolled) % 3_000), Ok(answer(&reply_to(request))))
    });
    let mut workers = vec![rig.worker().await];
    if below(2) == 0 {
        workers.push(rig.worker().await);
    }
    let (users, sessions) = (1 + below(4), 1 + below(8));
    let mut all = Vec::new();
    for n in 0..20 + below(40) {
        // A session is one user's, so that its share is what it has.
        let session = below(sessions);
        let (user, session) = (format!("u{}", session % users), format!("s{session}"));
        let workflow = format!("w{n}");
        rig.bus.publish_input(&user, &session, &workflow, &format!("{session} {n}"));
        all.push((id(&workflow), user));
        if below(4) == 0 {
            rig.pass(Duration::from_millis(below(2_000))).await;
        }
        if seed % 4 != 3 {
            let mut running: HashMap<&str, u32> = HashMap::new();
            for (workflow, user) in &all {
                if rig.store.turn(workflow) == Some(TurnState::Running) {
                    *running.entry(user).or_default() += 1;
                }
            }
            assert!(running.values().all(|turns| *turns <= share), "{running:?} of {share}, seed {seed}");
        }
    }
    for (workflow, _) in &all {
        rig.saved(workflow).await;
    }
    for (session, order) in asked.lock().unwrap().iter() {
        assert!(order.is_sorted(), "{session} was asked in the order {order:?}, seed {seed}");
    }
    let open = rig.store.open_turns().await.unwrap();
    assert_eq!((open.waiting.turns, open.running.turns), (0, 0), "seed {seed}");
    assert!(rig.verify().await.is_empty(), "seed {seed}");
}
