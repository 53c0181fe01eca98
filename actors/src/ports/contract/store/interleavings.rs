//! Many sessions at once, in an order nobody chose.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
};

use futures_util::future::join_all;

use super::{UnderTest, material::*};
use crate::ports::store::{
    Admission, AdmissionResult, Closed, Ending, HeldQuery, HeldStarted, Interaction, Share, UserLimits,
};

const USERS: [&str; 3] = ["ann", "ben", "cid"];
const SESSIONS: usize = 50;
const TURNS: usize = 20;
/// Largest number of endings in flight at once.
const AT_ONCE: usize = 12;
/// Largest number of inputs in a batch.
const BATCH: usize = 40;
/// More rounds than any run needs: a session that is stuck ends the test instead of hanging it.
const ROUNDS: usize = 20_000;

/// `SplitMix64`: the same choices for the same seed everywhere.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Input `n` is workflow `n`, with stream sequence `n + 1`.
enum Step {
    Admit(Vec<usize>),
    Save(usize),
    Fail(usize),
    /// Start held turns, at most so many.
    Start(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Saved,
    Failed,
}

#[derive(Default)]
struct Outcome {
    publish: Vec<usize>,
    ended: Option<(usize, End)>,
}

/// What the workers of the story know: they act on nothing but the store's answers.
struct World<'a, S> {
    store: &'a S,
    /// The session of each input.
    sessions: Vec<usize>,
    /// How many inputs were admitted, in stream order.
    admitted: usize,
    /// Published and not ended, by session.
    running: BTreeMap<usize, BTreeSet<usize>>,
    /// In the order of their first publishing.
    published: Vec<usize>,
    ended: BTreeMap<usize, End>,
    /// What each user has; then sessions belong to three users.
    share: Option<Share>,
    seed: u64,
}

impl<S: UnderTest> World<'_, S> {
    /// The workflow, session and sequence of an input.
    fn names(&self, input: usize) -> (String, String, u64) {
        (input.to_string(), self.sessions[input].to_string(), input as u64 + 1)
    }

    fn user(&self, input: usize) -> &'static str {
        if self.share.is_none() { "ann" } else { USERS[self.sessions[input] % USERS.len()] }
    }

    async fn perform(&self, step: &Step) -> Outcome {
        match step {
            Step::Admit(inputs) => {
                let admission = |input: &usize| -> Admission {
                    let (id, of, sequence) = self.names(*input);
                    let limits = UserLimits { share: self.share, open: None };
                    Admission { user_id: user(self.user(*input)), limits, ..accepted(&id, &of, sequence) }
                };
                let batch: Vec<Admission> = inputs.iter().map(admission).collect();
                let answers = admit(self.store, &batch).await;
                assert_eq!(answers.len(), batch.len(), "seed {}", self.seed);
                let run =
                    inputs.iter().zip(answers).filter(|(_, answer)| *answer == AdmissionResult::Running);
                Outcome { publish: run.map(|(input, _)| *input).collect(), ended: None }
            }
            Step::Save(input) => {
                let (id, of, sequence) = self.names(*input);
                let user_id = user(self.user(*input));
                let closed =
                    save(self.store, Interaction { user_id, ..interaction(&id, &of, sequence) }).await;
                Outcome::of(*input, &closed, End::Saved, End::Failed)
            }
            Step::Fail(input) => {
                let (id, of, sequence) = self.names(*input);
                let closed = fail(self.store, &id, &of, sequence).await;
                Outcome::of(*input, &closed, End::Failed, End::Saved)
            }
            Step::Start(most) => {
                let query = HeldQuery { share: self.share, behind: None, most: *most, at: at(800) };
                let HeldStarted { openings, .. } =
                    self.store.start_held(query).await.expect("the store answers");
                Outcome {
                    publish: openings.iter().map(|opening| input_of(&opening.event)).collect(),
                    ended: None,
                }
            }
        }
    }

    /// What the workers do next, all at once.
    fn choose(&mut self, choices: &mut Choices) -> Vec<Step> {
        let mut steps = Vec::new();
        let open: Vec<usize> = self.running.values().flatten().copied().collect();
        for _ in 0..=choices.below(AT_ONCE) {
            let Some(input) = open.get(choices.below(open.len())).copied() else { break };
            steps.push(if choices.one_in(4) { Step::Fail(input) } else { Step::Save(input) });
        }
        if choices.one_in(3) && self.admitted > 0 {
            steps.push(Step::Admit((0..=choices.below(5)).map(|_| choices.below(self.admitted)).collect()));
        }
        if let Some(again) = self.ended.keys().nth(choices.below(SESSIONS * TURNS)) {
            steps.push(if choices.one_in(2) { Step::Fail(*again) } else { Step::Save(*again) });
        }
        if self.share.is_some() && (open.is_empty() || choices.one_in(2)) {
            steps.push(Step::Start(1 + choices.below(BATCH)));
        }
        if self.admitted < self.sessions.len() && (open.is_empty() || choices.one_in(2)) {
            let until = self.sessions.len().min(self.admitted + 1 + choices.below(BATCH));
            steps.push(Step::Admit((self.admitted..until).collect()));
            self.admitted = until;
        }
        steps
    }

    fn learn(&mut self, outcomes: Vec<Outcome>) {
        let seed = self.seed;
        for (input, end) in outcomes.iter().filter_map(|outcome| outcome.ended) {
            let known = *self.ended.entry(input).or_insert(end);
            assert_eq!(known, end, "input {input} ended both ways, seed {seed}");
            self.running.entry(self.sessions[input]).or_default().remove(&input);
        }
        for input in outcomes.into_iter().flat_map(|outcome| outcome.publish) {
            // Publishing is idempotent, and an event of a workflow that has ended moves nothing.
            if self.ended.contains_key(&input) || self.published.contains(&input) {
                continue;
            }
            self.published.push(input);
            self.running.entry(self.sessions[input]).or_default().insert(input);
        }
        for (of, running) in &self.running {
            assert!(running.len() <= 1, "session {of} runs {running:?} at once, seed {seed}");
        }
    }

    async fn check_the_end(&self) {
        let seed = self.seed;
        assert_eq!(self.ended.len(), self.sessions.len(), "turns were left waiting, seed {seed}");
        for of in 0..SESSIONS {
            let in_session = |input: &usize| self.sessions[*input] == of;
            let ran: Vec<usize> = self.published.iter().copied().filter(in_session).collect();
            let expected: Vec<usize> = (0..self.sessions.len()).filter(in_session).collect();
            assert_eq!(ran, expected, "the order of session {of}, seed {seed}");
            let saved = expected.iter().filter(|input| self.ended[*input] == End::Saved);
            let saved: Vec<String> = saved.map(ToString::to_string).collect();
            let who = expected.first().map_or("ann", |input| self.user(*input));
            let stored = recent(self.store, who, &of.to_string(), TURNS).await;
            assert_eq!(stored, saved, "session {of}, seed {seed}");
        }
    }
}

impl Outcome {
    fn of(input: usize, closed: &Closed, asked: End, other: End) -> Self {
        let next = closed.next.iter().map(|next| input_of(&next.event)).collect();
        let end = match closed.ending {
            Ending::AsAsked => asked,
            Ending::Otherwise => other,
            Ending::Duplicate => panic!("input {input} has an id of its own"),
        };
        Self { publish: next, ended: Some((input, end)) }
    }
}

fn input_of(event: &[u8]) -> usize {
    event_of(event).parse().expect("an input")
}

/// Fifty sessions of twenty turns: admissions in stream order, endings, and redeliveries of both, several at a
/// time. No session ever runs two turns, each runs its turns in the order of the stream, every turn ends once
/// and nothing is left waiting.
pub async fn any_interleaving_keeps_the_order_of_every_session<S: UnderTest>(store: &S) {
    tell(store, |_| None).await;
}

/// The same with three users that have a share, of their own or of what there is: nothing that is held is forgotten.
pub async fn any_interleaving_keeps_the_order_although_users_have_shares<S: UnderTest>(store: &S) {
    tell(store, |choices| {
        let each = u32::try_from(1 + choices.below(3)).unwrap_or(1);
        let all = if choices.one_in(2) { 0 } else { u32::try_from(choices.below(12)).unwrap_or(0) };
        Some(Share { each, all })
    })
    .await;
}

async fn tell<S: UnderTest>(store: &S, share: impl Fn(&mut Choices) -> Option<Share>) {
    let given = std::env::var("THROUGHLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    #[allow(clippy::print_stderr)] // The test runner shows it if the story fails.
    {
        eprintln!("THROUGHLINE_SEED={seed}");
    }
    let mut choices = Choices(seed);
    let share = share(&mut choices);
    let mut sessions: Vec<usize> = (0..SESSIONS * TURNS).map(|input| input % SESSIONS).collect();
    for input in (1..sessions.len()).rev() {
        sessions.swap(input, choices.below(input + 1));
    }
    let mut world = World {
        store,
        sessions,
        admitted: 0,
        running: BTreeMap::new(),
        published: Vec::new(),
        ended: BTreeMap::new(),
        share,
        seed,
    };
    for _ in 0..ROUNDS {
        if world.ended.len() == world.sessions.len() {
            break;
        }
        let steps = world.choose(&mut choices);
        let outcomes = join_all(steps.iter().map(|step| world.perform(step))).await;
        world.learn(outcomes);
    }
    world.check_the_end().await;
}
