//! Many processes at once, in an order nobody chose, with and without connections that die in the middle of a call.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{Executor, PgConnection, Row};
use throughline_actors::ports::store::{
    Admission, AdmissionResult, Closed, Ending, HeldQuery, Opening, RunningQuery, Share, Store, StoreError,
    UserLimits,
};
use throughline_schemas::Timestamp;
use throughline_schemas::event::input::WhenBusy;

use super::{Stores, material::*};

const SESSIONS: usize = 12;
/// Each has a third of the sessions.
const USERS: [&str; 3] = ["ann", "ben", "cid"];
const INPUTS: usize = 300;
/// Tasks that call a store at the same time.
const CALLERS: usize = 12;
/// Largest number of inputs in a batch.
const BATCH: usize = 8;
/// More than any run needs: a session that is stuck ends the test instead of hanging it.
const ROUNDS: usize = 4_000;
/// A call whose connection died every time was made so often.
const TRIES: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Saved,
    Failed,
}

/// What the callers know together: they act on nothing but the store's answers.
#[derive(Default)]
struct World {
    /// Published and not ended.
    running: BTreeSet<usize>,
    ended: BTreeMap<usize, End>,
    /// Somebody admits them, in this order.
    admitted: usize,
    /// Their admission was answered.
    known: Vec<usize>,
}

struct Input {
    session: usize,
    when_busy: WhenBusy,
}

struct Story {
    stores: Box<Stores>,
    inputs: Vec<Input>,
    share: Option<Share>,
    world: Mutex<World>,
    seed: u64,
}

impl Story {
    fn admission(&self, input: usize) -> Admission {
        let Input { session, when_busy } = &self.inputs[input];
        let limits = UserLimits { share: self.share, open: None };
        let asked = asking(*when_busy, &input.to_string(), &session.to_string(), input as u64 + 1);
        Admission { user_id: user(USERS[session % USERS.len()]), limits, ..asked }
    }

    /// Some work, by the choices of one caller.
    async fn act(&self, choices: &mut StdRng) {
        let (new, open, again, known) = {
            let mut world = self.world.lock().unwrap();
            let from = world.admitted;
            if choices.random_ratio(1, 3) {
                world.admitted = INPUTS.min(from + choices.random_range(1..=BATCH));
            }
            let open: Vec<usize> = world.running.iter().copied().collect();
            let again = (0..4).filter(|_| world.admitted > 0);
            let again: Vec<usize> = again.map(|_| choices.random_range(0..world.admitted)).collect();
            let known = world.known.get(choices.random_range(0..=world.known.len())).copied();
            (from..world.admitted, open, again, known)
        };
        if !new.is_empty() {
            self.admit(new.collect()).await;
        }
        if choices.random_ratio(1, 8) {
            self.admit(again).await;
        }
        if self.share.is_some() && (open.is_empty() || choices.random_ratio(1, 3)) {
            self.start_held(choices.random_range(1..=BATCH)).await;
        }
        if self.share.is_some() && open.is_empty() {
            self.sweep().await;
        }
        if !open.is_empty() {
            self.end(open[choices.random_range(0..open.len())], choices.random_ratio(3, 4)).await;
        }
        if let Some(known) = known
            && choices.random_ratio(1, 8)
        {
            // Another message with its id, in another session, ends nobody's turn.
            let stranger = failing(&known.to_string(), "elsewhere", u64::MAX >> 1);
            let closed = persist(|| self.stores.fail(stranger.clone())).await;
            assert_eq!(closed.ending, Ending::Duplicate, "seed {}", self.seed);
        }
    }

    async fn admit(&self, inputs: Vec<usize>) {
        let batch: Vec<Admission> = inputs.iter().map(|input| self.admission(*input)).collect();
        let answers = persist(|| self.stores.admit(batch.clone())).await;
        assert_eq!(answers.len(), batch.len(), "seed {}", self.seed);
        self.world.lock().unwrap().known.extend(&inputs);
        for (input, answer) in inputs.into_iter().zip(answers) {
            if let Some(interrupted) = answer.interrupted {
                self.ended(input_of(&interrupted), End::Failed);
            }
            if let Some(opening) = answer.opening {
                self.published(&opening);
            }
            match answer.result {
                AdmissionResult::Running => self.runs(input),
                AdmissionResult::Rejected
                | AdmissionResult::NotOwner
                | AdmissionResult::TooManyOpen
                | AdmissionResult::Merged { .. } => {
                    self.ended(input, End::Failed);
                }
                AdmissionResult::Waiting | AdmissionResult::Held | AdmissionResult::Ended => {}
                AdmissionResult::Refused
                | AdmissionResult::Repeated { .. }
                | AdmissionResult::Conflict { .. } => {
                    panic!("{input}, seed {}", self.seed)
                }
            }
        }
    }

    async fn start_held(&self, most: usize) {
        let query = HeldQuery { share: self.share, behind: None, most, at: at(0) };
        for opening in persist(|| self.stores.start_held(query.clone())).await.openings {
            self.published(&opening);
        }
    }

    /// Begins turns whose start was committed and not answered.
    async fn sweep(&self) {
        let started_by = Timestamp::from_unix_ms(253_402_300_799_000);
        let query = RunningQuery { started_by, after: None, limit: INPUTS };
        for turn in persist(|| self.stores.running(query.clone())).await {
            self.runs(turn.workflow_id.as_str().parse().unwrap());
        }
    }

    async fn end(&self, input: usize, saves: bool) {
        let (id, of) = (input.to_string(), self.inputs[input].session.to_string());
        let sequence = input as u64 + 1;
        let (Closed { ending, next }, asked, other) = if saves {
            let answered = interaction(&id, &of, sequence);
            (persist(|| self.stores.save(answered.clone())).await, End::Saved, End::Failed)
        } else {
            let failing = failing(&id, &of, sequence);
            (persist(|| self.stores.fail(failing.clone())).await, End::Failed, End::Saved)
        };
        match ending {
            Ending::AsAsked => self.ended(input, asked),
            Ending::Otherwise => self.ended(input, other),
            Ending::Duplicate => panic!("{input}, seed {}", self.seed),
        }
        if let Some(next) = next {
            self.published(&next);
        }
    }

    fn published(&self, opening: &Opening) {
        self.runs(input_of(&opening.event));
    }

    fn runs(&self, input: usize) {
        let mut world = self.world.lock().unwrap();
        if !world.ended.contains_key(&input) {
            world.running.insert(input);
        }
    }

    fn ended(&self, input: usize, end: End) {
        let mut world = self.world.lock().unwrap();
        let known = *world.ended.entry(input).or_insert(end);
        assert_eq!(known, end, "input {input} ended both ways, seed {}", self.seed);
        world.running.remove(&input);
    }

    fn is_over(&self) -> bool {
        let world = self.world.lock().unwrap();
        world.ended.len() == INPUTS && world.running.is_empty()
    }
}

fn input_of(event: &[u8]) -> usize {
    std::str::from_utf8(event).unwrap().parse().unwrap()
}

/// As a worker would: a call that may not have happened is made again.
async fn persist<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> T {
    for _ in 0..TRIES {
        match call().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable { .. } | StoreError::Busy { .. }) => {}
            Err(error @ StoreError::Refused { .. }) => panic!("{error:?}"),
        }
    }
    panic!("no answer in {TRIES} tries")
}

/// What must be true at any instant: whoever waits, waits for a turn that runs, or for one that is held.
async fn assert_nobody_waits_for_nobody(look: &mut PgConnection, seed: u64) {
    let stuck = "SELECT w.session_id FROM turns AS w WHERE w.state = 'waiting' AND NOT EXISTS (
        SELECT FROM turns AS r WHERE r.session_id = w.session_id
            AND (r.state = 'running' OR r.state = 'waiting' AND r.is_held))";
    let stuck: Vec<String> = look.fetch_all(stuck).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(stuck.is_empty(), "sessions {stuck:?} wait for nobody, seed {seed}");
}

fn seed() -> u64 {
    let given = std::env::var("THROUGHLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    eprintln!("THROUGHLINE_SEED={seed}");
    seed
}

async fn tell(stores: Box<Stores>, kills: Option<Duration>, share: Option<Share>) {
    let seed = seed();
    let mut choices = StdRng::seed_from_u64(seed);
    let asks = [WhenBusy::Enqueue, WhenBusy::Enqueue, WhenBusy::Merge, WhenBusy::Reject, WhenBusy::Interrupt];
    let inputs = (0..INPUTS).map(|_| Input {
        session: choices.random_range(0..SESSIONS),
        when_busy: asks[choices.random_range(0..asks.len())],
    });
    let inputs = inputs.collect();
    let mut look = stores.look().await;
    let mut operator = stores.look().await;
    let story = Arc::new(Story { stores, inputs, share, world: Mutex::default(), seed });
    let callers = (0..CALLERS).map(|caller| {
        let story = Arc::clone(&story);
        let mut choices = StdRng::seed_from_u64(seed ^ (caller as u64 + 1));
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                if story.is_over() {
                    return;
                }
                story.act(&mut choices).await;
            }
        })
    });
    let callers = join_all(callers.collect::<Vec<_>>());
    let watch = async {
        loop {
            assert_nobody_waits_for_nobody(&mut look, seed).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut killed = 0;
    let kill = async {
        let Some(pause) = kills else { return std::future::pending::<()>().await };
        // Whoever is in the middle of something, if anybody is.
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'throughline'
            ORDER BY state = 'active' DESC, random() LIMIT 1";
        loop {
            tokio::time::sleep(pause).await;
            killed += operator.fetch_all(kill).await.unwrap().len();
        }
    };
    tokio::select! {
        () = watch => {}
        () = kill => {}
        ended = callers => ended.into_iter().for_each(|ended| ended.unwrap()),
    }
    eprintln!("{killed} connections were ended from outside");
    assert_eq!(kills.is_some(), killed > 0);
    check(&story, &mut look, kills.is_none()).await;
}

async fn check(story: &Story, look: &mut PgConnection, undisturbed: bool) {
    let seed = story.seed;
    assert!(story.is_over(), "turns were left open, seed {seed}");
    let world = story.world.lock().unwrap().ended.clone();
    let open = "SELECT count(*) FROM turns WHERE state IN ('waiting', 'running')";
    assert_eq!(look.fetch_one(open).await.unwrap().get::<i64, _>(0), 0, "seed {seed}");
    let saved = "SELECT workflow_id FROM interactions";
    let saved: BTreeSet<usize> = look
        .fetch_all(saved)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get::<&str, _>(0).parse().unwrap())
        .collect();
    let known = world.iter().filter(|(_, end)| **end == End::Saved).map(|(input, _)| *input).collect();
    assert_eq!(saved, known, "seed {seed}");
    assert_eq!(world.len(), INPUTS, "seed {seed}");
    if undisturbed {
        // Locks are taken in one order, so that the server never had to choose a victim.
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(look.fetch_one(deadlocks).await.unwrap().get::<i64, _>(0), 0, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_schedule_of_many_processes_loses_and_doubles_nothing() {
    let Some(stores) = Stores::new(4).await else { return };
    tell(stores, None, None).await;
}

/// The same with users that have a share, of their own or of what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn any_schedule_of_many_processes_forgets_nothing_that_is_held() {
    for share in [Share { each: 2, all: 0 }, Share { each: 1, all: 5 }] {
        let Some(stores) = Stores::new(4).await else { return };
        tell(stores, None, Some(share)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_killed_mid_commit_forget_nothing_that_is_held() {
    let Some(stores) = Stores::new(4).await else { return };
    tell(stores, Some(Duration::from_millis(50)), Some(Share { each: 1, all: 0 })).await;
}

/// Fault matrix, row 12: connections end in the middle of whatever they are doing, commits included.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_are_killed_mid_commit_lose_and_double_nothing() {
    let Some(stores) = Stores::new(4).await else { return };
    tell(stores, Some(Duration::from_millis(50)), None).await;
}

/// A message with the id of another, in another session, at the same time: one of the two is admitted, and the
/// other's ending, if it comes, ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_workflow_id_in_two_sessions_at_once_is_admitted_once() {
    let Some(stores) = Stores::new(4).await else { return };
    let (stores, mut look) = (Arc::new(stores), None);
    for round in 0..60_u64 {
        let contenders = (0..6_u64).map(|of| {
            let (stores, ids) = (Arc::clone(&stores), (0..4).map(move |n| format!("{round}-{n}")));
            tokio::spawn(async move {
                // Forwards and backwards, so that whoever locked them as they come would wait in a circle.
                let mut ids: Vec<String> = ids.collect();
                if of % 2 == 0 {
                    ids.reverse();
                }
                let session = format!("{round}-{of}");
                let batch = ids.iter().map(|id| admission(id, &session, of * 1000 + round));
                if of < 4 {
                    let answers = stores.admit(batch.collect()).await.unwrap();
                    answers
                        .into_iter()
                        .filter(|answer| {
                            !matches!(
                                answer.result,
                                AdmissionResult::Repeated { .. } | AdmissionResult::Conflict { .. }
                            )
                        })
                        .count()
                } else {
                    for id in &ids {
                        stores.save(interaction(id, &session, of * 1000 + round)).await.unwrap();
                    }
                    0
                }
            })
        });
        for contender in join_all(contenders.collect::<Vec<_>>()).await {
            contender.unwrap();
        }
        let look = match &mut look {
            Some(look) => look,
            none => none.insert(stores.look().await),
        };
        assert_nobody_waits_for_nobody(look, round).await;
    }
    let mut look = look.unwrap();
    let turns = "SELECT count(*), count(*) FILTER (WHERE state = 'saved') FROM turns";
    let turns = look.fetch_one(turns).await.unwrap();
    assert_eq!(
        (turns.get::<i64, _>(0), turns.get::<i64, _>(1)),
        (240, 240),
        "each id once, and its save ended it"
    );
    let rows = look.fetch_one("SELECT count(*) FROM interactions").await.unwrap();
    assert_eq!(rows.get::<i64, _>(0), 240);
}
