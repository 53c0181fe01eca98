//! Random schedules: messages of several sessions, faults everywhere, processes that die. Whatever happens, every
//! workflow ends once, sessions keep their order, and no answer is paid for without a reason.
//!
//! `FLOW_SEED=7 cargo test --test flow schedule` runs one schedule; `FLOW_SEEDS=5000` runs that many.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::select_all;
use throughline_actors::model::client::RateLimits;
use throughline_actors::ports::{
    memory::{
        model::{answer, failure},
        script::Reply,
        store::TurnState,
    },
    model::{ModelError, Phase},
};
use throughline_schemas::{EventType, StageName, WorkflowId};

use crate::harness::{ACK_WAIT, Act, Gate, JOURNEY, Op, PROVIDER, Rig, Worker, question, reply_to, splitmix};

const SEEDS: u64 = 200;
/// Faults stop after this; everything must end then.
const STORM: Duration = Duration::from_mins(2);

/// Chance, shared by everything that happens in one schedule.
#[derive(Clone)]
struct Dice(Arc<AtomicU64>);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        splitmix(&self.0) % n
    }
    /// One in `n`.
    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn millis(&self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

/// What may excuse another call of the model.
#[derive(Default)]
struct Excuses {
    /// Calls that failed, or were lost with their worker.
    generation: AtomicUsize,
    /// Processes that died, with what they had in hand in the generation stage.
    in_hand: AtomicUsize,
    /// Panics while an input was admitted: it is handed back then, and newer ones overtake it.
    admission: AtomicUsize,
}

type Story = Arc<Mutex<Vec<String>>>;

struct Schedule {
    rig: Rig,
    dice: Dice,
    excuses: Arc<Excuses>,
    /// Who was asked about, by session, in the order of the first question.
    asked: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    /// What was done to whom, and when.
    story: Story,
    /// One process that lives, and calls that fail but never panic.
    calm: bool,
}

impl Schedule {
    fn new(seed: u64, story: &Story) -> Self {
        let mut rig = Rig::seeded(seed);
        let dice = Dice(Arc::new(AtomicU64::new(seed)));
        rig.settings.recent_turns = 1;
        for stage in rig.settings.stages.values_mut() {
            stage.concurrency = 1 + usize::try_from(dice.below(8)).unwrap();
        }
        if seed % 4 == 1 {
            // Much is held back by a rate limit, and handed back with a note.
            let rates =
                RateLimits { requests_per_minute: Some(20.try_into().unwrap()), tokens_per_minute: None };
            let client = &mut rig.settings.generation.client;
            client.provider_rates.insert(PROVIDER.to_owned(), rates);
            client.rate_hold = Duration::from_secs(2);
        }
        let excuses: Arc<Excuses> = Arc::default();
        let asked: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
        let (noted, heard, rolled) = (Arc::clone(&excuses), Arc::clone(&asked), dice.clone());
        let started = tokio::time::Instant::now();
        rig.models.otherwise(PROVIDER, move |request| {
            let text = question(request);
            let session = text.split_once(' ').map_or("", |(session, _)| session).to_owned();
            let mut heard = heard.lock().unwrap();
            let of_session = heard.entry(session).or_default();
            if !of_session.contains(&text) {
                of_session.push(text);
            }
            let wait = rolled.millis(3_000);
            if started.elapsed() > STORM || !rolled.one_in(6) {
                return Reply::After(wait, Ok(answer(&reply_to(request))));
            }
            noted.generation.fetch_add(1, Ordering::Relaxed);
            let error = match rolled.below(4) {
                0 => ModelError::Server("overloaded".to_owned()),
                1 => ModelError::RateLimited(String::new()),
                2 => ModelError::TimedOut(Phase::Total),
                _ => ModelError::BadRequest("no".to_owned()),
            };
            Reply::After(wait, Err(failure(error)))
        });
        Self { rig, dice, excuses, asked, story: Arc::clone(story), calm: seed.is_multiple_of(3) }
    }

    /// Makes a worker misbehave until the storm is over.
    fn shake(&self, gate: &Gate) {
        let (dice, excuses, calm) = (self.dice.clone(), Arc::clone(&self.excuses), self.calm);
        let started = tokio::time::Instant::now();
        let (story, since) = (Arc::clone(&self.story), self.rig.seconds());
        let slots = self.rig.settings.stages[&StageName::Generation].concurrency;
        let left = STORM.saturating_sub(Duration::from_secs_f64(self.rig.seconds()));
        gate.on(move |op, about| {
            // Those can only end a part of the engine; tested elsewhere.
            let elsewhere = matches!(op, Op::Listen | Op::Chance);
            if elsewhere || started.elapsed() > left || !dice.one_in(25) {
                return Act::Go;
            }
            let act = match dice.below(12) {
                0 | 1 => Act::Lost,
                2 | 3 => Act::Unanswered,
                4 | 5 => Act::Panic,
                6 => Act::Die,
                7 => Act::DieAfter,
                _ => Act::Slow(dice.millis(2_000)),
            };
            let act = match (op, act) {
                (_, Act::Panic | Act::Die | Act::DieAfter) if calm => Act::Go,
                (_, Act::Die | Act::DieAfter) => {
                    // Until the call is through and the process dead, it may fill its slots.
                    excuses.in_hand.fetch_add(slots, Ordering::Relaxed);
                    act
                }
                // Those have no answer to lose, or end the stage rather than the call; tested elsewhere.
                (Op::Open | Op::Next | Op::Progress, _) | (Op::Fetch, Act::Panic) => Act::Go,
                // The call fails, or its answer dies with its worker.
                (Op::Generate, Act::Lost | Act::Unanswered) | (_, Act::Panic) => {
                    excuses.generation.fetch_add(1, Ordering::Relaxed);
                    act
                }
                (_, act) => act,
            };
            let admits = op == Op::Admit
                || (matches!(op, Op::Claim | Op::SetClaim) && about.starts_with("input"))
                || (op == Op::Publish && about.starts_with("input_validated"))
                || (op == Op::Settle && about.contains("user_input_received"));
            if act == Act::Panic && admits {
                excuses.admission.fetch_add(1, Ordering::Relaxed);
            }
            if act != Act::Go {
                let at = since + started.elapsed().as_secs_f64();
                story.lock().unwrap().push(format!("{at:8.3} {act:?} at {op:?} of {about}"));
            }
            act
        });
    }

    async fn worker(&self) -> Worker {
        let worker = self.rig.worker().await;
        self.shake(&worker.gate);
        worker
    }

    async fn run(&self) {
        let sessions = 1 + self.dice.below(5);
        let messages = 4 + self.dice.below(12);
        let mut workers = vec![self.worker().await];
        if !self.calm && self.dice.one_in(2) {
            workers.push(self.worker().await);
        }
        let mut published: Vec<(WorkflowId, String)> = Vec::new();
        for n in 0..messages {
            let session = format!("s{}", self.dice.below(sessions));
            let text = if self.dice.one_in(12) { " ".to_owned() } else { format!("{session} {n}") };
            let workflow = self.rig.publish(&format!("w{n}"), &session, &text);
            if self.dice.one_in(10) {
                self.rig.publish(&format!("w{n}"), &session, &text);
            }
            published.push((workflow, text));
            if self.dice.one_in(3) {
                self.rig.pass(self.dice.millis(4_000)).await;
            }
            if !self.calm && self.dice.one_in(15) {
                self.end_one(&mut workers).await;
            }
            self.replace_dead(&mut workers).await;
        }
        for (workflow, _) in &published {
            loop {
                let death = select_all(workers.iter().map(|worker| Box::pin(worker.gate.died())));
                tokio::select! {
                    biased;
                    _ = self.rig.ended(workflow) => break,
                    _ = death => {}
                }
                self.replace_dead(&mut workers).await;
            }
        }
        // What is still on its way (redeliveries, the last settlements) must not undo anything.
        let quiet = STORM + ACK_WAIT * 3;
        while self.rig.seconds() < quiet.as_secs_f64() {
            self.rig.pass(ACK_WAIT / 3).await;
            self.replace_dead(&mut workers).await;
        }
        self.rig.pass(ACK_WAIT * 3).await;
        self.check(&published);
        // Whatever happened, it comes out as it was when it is made again.
        assert_eq!(self.rig.verify().await, Vec::<String>::new());
    }

    async fn replace_dead(&self, workers: &mut Vec<Worker>) {
        let before = workers.len();
        workers.retain(|worker| !worker.gate.is_dead());
        while workers.len() < before {
            workers.push(self.worker().await);
        }
    }

    /// One process dies or is told to stop, between any two messages, and another takes its place.
    async fn end_one(&self, workers: &mut Vec<Worker>) {
        let victim = workers.remove(usize::try_from(self.dice.below(workers.len() as u64)).unwrap());
        // Until it hears of it, it may fill its slots.
        let slots = self.rig.settings.stages[&StageName::Generation].concurrency;
        self.excuses.in_hand.fetch_add(slots, Ordering::Relaxed);
        let drains = self.dice.one_in(3);
        self.story
            .lock()
            .unwrap()
            .push(format!("{:8.3} a worker ends, drained: {drains}", self.rig.seconds()));
        if drains {
            victim.gate.on(|_, _| Act::Go);
            victim.drain(self.dice.millis(3_000)).await;
        } else {
            victim.crash();
        }
        workers.push(self.worker().await);
    }

    fn check(&self, published: &[(WorkflowId, String)]) {
        let rig = &self.rig;
        let mut saved = 0;
        for (workflow, text) in published {
            let types = rig.types(workflow);
            let ends = types.iter().filter(|event| event.is_end()).count();
            assert_eq!(ends, 1, "{workflow} must end once: {types:?}");
            let mut once = types.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), types.len(), "{workflow} has an event twice: {types:?}");
            let is_saved = types.last() == Some(&EventType::InteractionSaved);
            assert_eq!(rig.store.interaction(workflow).is_some(), is_saved, "{workflow}: row and end agree");
            let state = if is_saved { TurnState::Saved } else { TurnState::Failed };
            assert_eq!(rig.store.turn(workflow), Some(state), "{workflow}");
            if is_saved {
                saved += 1;
                assert_eq!(types, JOURNEY, "{workflow}");
                let row = rig.store.interaction(workflow).unwrap();
                assert_eq!(
                    row.response.text,
                    format!("re: {text}"),
                    "{workflow} got the answer to its own question"
                );
            }
        }
        assert_eq!(rig.store.interactions(), saved);
        for stage in StageName::ALL {
            assert_eq!(rig.bus.in_hand(stage), 0, "{stage} should have nothing in hand");
        }

        let calls = rig.models.calls(PROVIDER);
        let allowed = published.len()
            + self.excuses.generation.load(Ordering::Relaxed)
            + self.excuses.in_hand.load(Ordering::Relaxed);
        assert!(calls <= allowed, "{calls} calls of the model, {allowed} are excused");

        if self.excuses.admission.load(Ordering::Relaxed) == 0 {
            for (session, asked) in self.asked.lock().unwrap().iter() {
                let number =
                    |text: &String| text.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap();
                let order: Vec<_> = asked.iter().map(number).collect();
                assert!(order.is_sorted(), "{session} was asked in the order {order:?}");
            }
        }
        self.check_one_at_a_time();
    }

    /// Nothing is done for a turn once the next one has begun. (Its end may be told a little later: what counts is
    /// when the database has it.)
    fn check_one_at_a_time(&self) {
        let mut begun: BTreeMap<String, Vec<WorkflowId>> = BTreeMap::new();
        for event in self.rig.bus.events() {
            let (name, workflow) = (event.event_type(), event.meta.workflow_id);
            let turns = begun.entry(event.meta.session_id.to_string()).or_default();
            if name == EventType::InputValidated {
                turns.push(workflow);
            } else if !name.is_end() {
                assert_eq!(turns.last(), Some(&workflow), "{name} of {workflow} while another turn runs");
            }
        }
    }
}

#[test]
fn whatever_happens_everything_ends_once_and_in_order() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("FLOW_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLOW_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let story = Story::default();
        let ran = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                Schedule::new(seed, &story).run().await;
            });
        });
        if let Err(problem) = ran {
            let message = problem.downcast_ref::<String>().map_or("see above", String::as_str);
            let story = story.lock().unwrap().join("\n");
            panic!("FLOW_SEED={seed} fails: {message}\n{story}");
        }
    }
}
