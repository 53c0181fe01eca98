//! Finished work makes room in the log; what is not finished stays, whatever happens meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use throughline_actors::{
    ports::{
        archive::{Archive, ArchiveError, Archived},
        memory::{model::answer, script::Reply},
    },
    workflow::users::RunningLimit,
};
use throughline_schemas::{EventType, Timestamp};

use crate::harness::{Act, JOURNEY, Op, PROVIDER, Rig, Worker, question, reply_to, splitmix};

const MINUTE: Duration = Duration::from_mins(1);
/// What one workflow of these tests takes in the log, in bytes, at most.
const WORKFLOW_BYTES: u64 = 12_000;

/// What this process removed too early; a test that removed nothing at all proves nothing.
fn assert_nothing_open_was_removed(rig: &Rig, workers: &[Worker]) {
    assert!(rig.bus.purged().1 > 0, "nothing was removed");
    for worker in workers {
        assert_eq!(worker.gate.unfinished(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn finished_work_makes_room_before_input_is_refused() {
    let (rig, worker) = Rig::running().await;
    rig.bus.limit(WORKFLOW_BYTES * 20);
    for n in 0..300 {
        assert!(!rig.bus.refuses(2_000), "input {n} would be refused");
        let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
        rig.saved(&workflow).await;
        assert_eq!(rig.types(&workflow), JOURNEY);
        rig.pass(Duration::from_secs(5)).await;
    }
    assert_eq!((rig.store.interactions(), rig.models.calls(PROVIDER)), (300, 300));
    assert_nothing_open_was_removed(&rig, &[worker]);
    let removed = rig.meters.count("throughline_log_purged_total", &[]);
    assert!(removed > 1_000, "{removed}");
    let fill = rig.meters.gauge("throughline_log_fill_ratio", &[("stream", "events")]).unwrap();
    assert!((0.2..=0.95).contains(&fill), "{fill}");
    assert!(rig.meters.gauge("throughline_log_growth_bytes_per_second", &[]).unwrap() > 100.0);
}

/// Faster than what has just been finished may usually go.
#[tokio::test(start_paused = true)]
async fn a_flood_takes_what_has_just_been_finished_along() {
    let (rig, worker) = Rig::running().await;
    rig.bus.limit(WORKFLOW_BYTES * 40);
    for n in 0..300 {
        assert!(!rig.bus.refuses(2_000), "input {n} would be refused");
        let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
        rig.saved(&workflow).await;
        rig.pass(Duration::from_millis(300)).await;
    }
    assert_nothing_open_was_removed(&rig, &[worker]);
}

/// Large bodies fill their store long before the log is full.
#[tokio::test(start_paused = true)]
async fn large_bodies_of_finished_work_make_room_for_others() {
    const BODY_BYTES: u64 = 100_000;
    let (rig, worker) = Rig::running().await;
    rig.bus.limit(u64::MAX);
    rig.bus.limit_bodies(BODY_BYTES * 30);
    rig.models
        .otherwise(PROVIDER, |_| Reply::Now(Ok(answer(&"x".repeat(usize::try_from(BODY_BYTES).unwrap())))));
    for n in 0..100 {
        let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
        rig.saved(&workflow).await;
        assert_eq!(rig.types(&workflow), JOURNEY);
        rig.pass(Duration::from_secs(20)).await;
    }
    assert_eq!((rig.store.interactions(), rig.models.calls(PROVIDER)), (100, 100));
    assert_nothing_open_was_removed(&rig, &[worker]);
    assert!(rig.meters.count("throughline_bodies_released_total", &[]) > 100);
    let fill = rig.meters.gauge("throughline_log_fill_ratio", &[("stream", "bodies")]).unwrap();
    assert!(fill <= 0.95, "{fill}");
}

#[tokio::test(start_paused = true)]
async fn an_open_turn_keeps_what_is_behind_it_and_that_is_told() {
    let (rig, worker) = Rig::running().await;
    rig.bus.limit(WORKFLOW_BYTES * 10);
    rig.models.otherwise(PROVIDER, |request| {
        let wait = if question(request) == "slow" { MINUTE * 25 } else { Duration::ZERO };
        Reply::After(wait, Ok(answer(&reply_to(request))))
    });
    let slow = rig.publish("slow", "slow", "slow");
    let mut held: f64 = 0.0;
    for n in 0..100 {
        let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
        rig.saved(&workflow).await;
        rig.pass(Duration::from_secs(12)).await;
        held = held.max(rig.meters.gauge("throughline_log_held_seconds", &[]).unwrap_or(0.0));
    }
    assert_eq!(rig.bus.purged().1, 0, "everything is behind the open turn");
    // Only the results of what has ended could go from there.
    let removed = rig.meters.count("throughline_log_purged_total", &[]);
    assert!(removed > 20, "{removed}");
    assert_eq!(rig.types(&slow), JOURNEY[..3]);
    assert!(held > 60.0, "{held}");
    assert_eq!(rig.meters.gauge("throughline_log_oldest_open_sequence", &[]), Some(1.0));
    rig.saved(&slow).await;
    rig.pass(MINUTE * 3).await;
    assert_eq!(worker.gate.unfinished(), Vec::<String>::new());
    assert_eq!(rig.meters.gauge("throughline_log_held_seconds", &[]), Some(0.0));
    assert!(!rig.bus.refuses(20_000));
}

/// A turn takes long, and others fill the log with finished work meanwhile. The turn needs room in that log to end, and nothing
/// before it can go.
#[tokio::test(start_paused = true)]
async fn a_full_log_makes_room_for_the_turn_that_keeps_it_full() {
    let (rig, worker) = Rig::running().await;
    rig.bus.limit(WORKFLOW_BYTES * 10);
    let released = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&released);
    rig.models.otherwise(PROVIDER, move |request| {
        let waits = question(request) == "slow" && !may_end.load(Ordering::Relaxed);
        let wait = if waits { MINUTE } else { Duration::ZERO };
        Reply::After(wait, Ok(answer(&reply_to(request))))
    });
    let slow = rig.publish("slow", "slow", "slow");
    let mut refused = 0;
    for n in 0..100 {
        let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
        rig.saved(&workflow).await;
        rig.pass(Duration::from_millis(200)).await;
        refused += usize::from(rig.bus.refuses(4_000));
    }
    released.store(true, Ordering::Relaxed);
    rig.saved(&slow).await;
    assert_eq!((rig.store.interactions(), rig.models.calls(PROVIDER)), (101, 101));
    assert_eq!(worker.gate.unfinished(), Vec::<String>::new());
    assert!(rig.meters.count("throughline_log_purged_total", &[]) > 100);
    assert!(refused < 20, "{refused} times");
}

/// More turns than the log holds, and each is open for minutes: nothing can be removed, and all need room to end.
#[tokio::test(start_paused = true)]
async fn turns_wait_while_open_ones_need_what_room_is_left() {
    const SHORT_OF_ROOM: &str = "throughline_log_short_of_room";
    let mut rig = Rig::new();
    rig.settings.stages.values_mut().for_each(|stage| stage.concurrency = 1_000);
    rig.settings.users.running = RunningLimit::Unlimited;
    rig.bus.limit(WORKFLOW_BYTES * 30);
    let worker = rig.worker().await;
    rig.models.otherwise(PROVIDER, |request| Reply::After(MINUTE * 5, Ok(answer(&reply_to(request)))));
    let mut waited = false;
    for n in 0..300 {
        assert!(!rig.bus.refuses(2_000), "input {n} would be refused");
        rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
        rig.pass(Duration::from_millis(100)).await;
        waited |= rig.meters.gauge(SHORT_OF_ROOM, &[]) == Some(1.0);
    }
    while rig.store.interactions() < 300 {
        rig.pass(MINUTE).await;
        waited |= rig.meters.gauge(SHORT_OF_ROOM, &[]) == Some(1.0);
        assert!(!rig.bus.refuses(2_000), "the log is full");
        assert!(rig.seconds() < 3_600.0, "{} turns have ended within an hour", rig.store.interactions());
    }
    assert!(waited, "no turn had to wait");
    assert_eq!(rig.models.calls(PROVIDER), 300);
    assert_nothing_open_was_removed(&rig, &[worker]);
    rig.pass(MINUTE).await;
    assert_eq!(rig.meters.gauge(SHORT_OF_ROOM, &[]), Some(0.0));
}

/// An input is admitted and acknowledged while somebody asks what is still needed: between the two questions, or before
/// the second is answered. It must be in one of the answers.
#[tokio::test(start_paused = true)]
async fn an_input_that_is_admitted_meanwhile_stays() {
    for slow in [Op::Fill, Op::OldestOpen, Op::Purge] {
        let (rig, worker) = Rig::running().await;
        rig.bus.limit(WORKFLOW_BYTES * 20);
        rig.models.otherwise(PROVIDER, |request| {
            let wait = if question(request) == "late" { MINUTE * 20 } else { Duration::ZERO };
            Reply::After(wait, Ok(answer(&reply_to(request))))
        });
        for n in 0..40 {
            let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
            rig.saved(&workflow).await;
        }
        // A look takes half a minute from now on, at one place.
        worker.gate.on(move |op, _| if op == slow { Act::Slow(MINUTE / 2) } else { Act::Go });
        let mut late = Vec::new();
        for n in 0..60 {
            late.push(rig.publish(&format!("late{n}"), &format!("l{n}"), "late"));
            rig.pass(Duration::from_secs(3)).await;
            if rig.bus.refuses(20_000) {
                break;
            }
        }
        rig.pass(MINUTE * 4).await;
        for workflow in &late {
            assert!(rig.store.turn(workflow).is_some_and(is_open), "{slow:?}: {workflow}");
            let types = rig.types(workflow);
            assert!(
                types == JOURNEY[..3] || types.is_empty(),
                "{slow:?}: {workflow} has {types:?}, and may be held"
            );
        }
        assert_nothing_open_was_removed(&rig, &[worker]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_old_and_finished_goes_and_what_nobody_has_admitted_stays() {
    let mut rig = Rig::new();
    rig.settings.retention.events = MINUTE * 60;
    let worker = rig.worker().await;
    let finished = rig.publish("w1", "s1", "hello");
    rig.saved(&finished).await;
    worker.crash();
    rig.publish("w2", "s2", "nobody is there");
    rig.pass(MINUTE * 60 * 3).await;
    let other = rig.worker().await;
    rig.saved(&crate::harness::id("w2")).await;
    rig.pass(MINUTE * 5).await;
    assert_eq!(rig.types(&finished), [], "older than an hour");
    assert_eq!(rig.types(&crate::harness::id("w2")), JOURNEY);
    assert_eq!(rig.bus.stored()[0].sequence, 8, "its input was as old, and it has ended");
    assert_nothing_open_was_removed(&rig, &[other]);
}

/// Remembers what it was given, and fails when told to.
#[derive(Default)]
struct Shelf {
    ranges: Mutex<Vec<(u64, u64)>>,
    fails: AtomicBool,
    forgotten: AtomicU64,
}

#[async_trait]
impl Archive for Shelf {
    async fn keep(&self, first: u64, before: u64) -> Result<Archived, ArchiveError> {
        // Longer than the turn of a process lasts that does not say so again.
        tokio::time::sleep(MINUTE / 2).await;
        let name = format!("{first}-{before}");
        if self.fails.load(Ordering::Relaxed) {
            return Err(ArchiveError::Failed { name, reason: "the disk is full".to_owned(), source: None });
        }
        self.ranges.lock().unwrap().push((first, before));
        Ok(Archived { name, messages: before - first })
    }

    async fn forget(&self, _: Timestamp) -> Result<u64, ArchiveError> {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_removed_that_is_not_archived_and_one_process_does_it() {
    let mut rig = Rig::new();
    rig.bus.limit(WORKFLOW_BYTES * 40);
    rig.settings.retention.archives = Some(MINUTE);
    let shelf = Arc::new(Shelf::default());
    rig.archive = Some(shelf.clone());
    shelf.fails.store(true, Ordering::Relaxed);
    let mut workers = vec![rig.worker().await];
    let mut n = 0;
    let mut some = async |count: u64, pause: Duration| {
        for _ in 0..count {
            n += 1;
            let workflow = rig.publish(&format!("w{n}"), &format!("s{n}"), "hello");
            rig.saved(&workflow).await;
            rig.pass(pause).await;
        }
    };
    while !rig.bus.refuses(usize::try_from(WORKFLOW_BYTES * 7).unwrap()) {
        some(1, Duration::from_secs(1)).await;
    }
    rig.pass(MINUTE * 5).await;
    assert_eq!(rig.bus.purged().1, 0, "it is configured to be archived first, and cannot be");
    assert_eq!(rig.meters.gauge("throughline_retention_failing", &[]), Some(1.0));
    shelf.fails.store(false, Ordering::Relaxed);
    workers.extend([rig.worker().await, rig.worker().await]);
    rig.pass(MINUTE * 5).await;
    some(150, Duration::from_secs(10)).await;
    // Whoever has the turn dies; another takes it.
    let before = shelf.ranges.lock().unwrap().len();
    workers.remove(0).crash();
    workers.remove(0).crash();
    some(100, Duration::from_secs(10)).await;
    let ranges = shelf.ranges.lock().unwrap().clone();
    assert!(before > 2 && ranges.len() > before + 1, "{ranges:?}");
    // One behind the other, each once: but for one that died between archiving and removing.
    let doubled = ranges.windows(2).filter(|pair| pair[0].1 != pair[1].0).count();
    assert!(ranges[0].0 == 1 && doubled <= 1, "{ranges:?}");
    let purge = rig.bus.purged().0.unwrap();
    assert_eq!(Some(purge.before), ranges.last().map(|(_, before)| *before));
    assert!(purge.archive.is_some());
    assert!(rig.meters.count("throughline_log_archived_total", &[]) > 100);
    assert!(shelf.forgotten.load(Ordering::Relaxed) > 0);
    assert_nothing_open_was_removed(&rig, &workers);
}

/// Processes die, calls fail and answers get lost, while the log is always nearly full.
#[tokio::test(start_paused = true)]
async fn whatever_happens_nothing_open_is_removed_and_everything_ends_once() {
    let seeds = std::env::var("FLOW_SEEDS").ok().map_or(2, |text| text.parse().expect("a number"));
    for seed in 0..seeds {
        let mut rig = Rig::seeded(seed);
        rig.settings.ack_wait = MINUTE / 2;
        rig.bus.limit(WORKFLOW_BYTES * 15);
        let dice = Arc::new(AtomicU64::new(seed));
        let rolled = Arc::clone(&dice);
        rig.models.otherwise(PROVIDER, move |request| {
            let wait = Duration::from_millis(splitmix(&rolled) % 90_000);
            Reply::After(wait, Ok(answer(&reply_to(request))))
        });
        let began = tokio::time::Instant::now();
        let storm = async || {
            let worker = rig.worker().await;
            let (dice, calm_from) = (Arc::clone(&dice), began + MINUTE * 5);
            worker.gate.on(move |op, _| {
                let is_calm = tokio::time::Instant::now() > calm_from;
                if is_calm || matches!(op, Op::Listen | Op::Chance | Op::Open | Op::Next | Op::Generate) {
                    return Act::Go;
                }
                match splitmix(&dice) % 400 {
                    0..=2 => Act::Lost,
                    3..=5 => Act::Unanswered,
                    6 => Act::DieAfter,
                    7 => Act::Die,
                    8..=40 => Act::Slow(Duration::from_millis(splitmix(&dice) % 20_000)),
                    _ => Act::Go,
                }
            });
            worker
        };
        let (mut workers, mut gone) = (vec![storm().await, storm().await], Vec::new());
        let mut published = Vec::new();
        let mut left = 40;
        while left > 0 || published.iter().any(|workflow| rig.store.turn(workflow).is_none_or(is_open)) {
            if left > 0 && !rig.bus.refuses(2 * usize::try_from(WORKFLOW_BYTES).unwrap()) {
                let session = splitmix(&dice) % 20;
                published.push(rig.publish(&format!("w{left}"), &format!("s{session}"), "hello"));
                left -= 1;
            }
            rig.pass(Duration::from_millis(splitmix(&dice) % 8_000)).await;
            assert!(rig.seconds() < 24.0 * 3600.0, "seed {seed}: {left} are left after a day");
            for worker in &mut workers {
                if worker.gate.is_dead() {
                    gone.push(std::mem::replace(worker, storm().await));
                }
            }
        }
        workers.extend(gone);
        assert_nothing_open_was_removed(&rig, &workers);
        for workflow in &published {
            let ends = rig.types(workflow).into_iter().filter(|event| event.is_end()).count();
            assert!(ends <= 1, "seed {seed}: {workflow} has {ends} ends");
        }
        let validated =
            rig.bus.events().into_iter().filter(|event| event.event_type() == EventType::InputValidated);
        assert!(validated.count() < 40, "seed {seed}");
    }
}

fn is_open(state: throughline_actors::ports::memory::store::TurnState) -> bool {
    use throughline_actors::ports::memory::store::TurnState;
    matches!(state, TurnState::Waiting | TurnState::Running)
}
