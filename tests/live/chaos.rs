//! Chaos: workers, servers and the database fail at random while strangers publish; then ledgers that are not ours
//! say whether a promise was broken.
//!
//! The publisher, the model and the reader are Python programs that share no code with Throughline; the rows are read
//! by another SQLite. The invariants are in [`judge`]. Everything random comes from one seed, which is printed; the
//! schedule of faults is the same for the same seed, what the processes make of it is not.
//!
//! `tests/live/chaos.sh --help` runs it for longer.

#![allow(unreachable_pub)]

mod faults;
mod judge;
mod rig;

use std::time::Duration;

use faults::Mix;
use rig::Run;

use crate::harness::python;

/// What a run is asked to do; the environment (see `chaos.sh`) is stronger than the test.
struct Plan {
    seed: u64,
    sessions: usize,
    turns: usize,
    per_second: f64,
    workers: usize,
    mix: Mix,
    /// Share of the model's calls that fail, in percent.
    model_faults: f64,
    /// Time from one fault of the schedule to the next, on average.
    pace: Duration,
}

/// A variable of `chaos.sh`.
fn asked<T: std::str::FromStr>(name: &str, otherwise: T) -> T {
    let text = std::env::var(format!("THROUGHLINE_CHAOS_{name}")).ok();
    text.map_or(otherwise, |text| {
        text.parse().ok().unwrap_or_else(|| panic!("THROUGHLINE_CHAOS_{name}={text} makes no sense"))
    })
}

impl Plan {
    fn or_asked(self) -> Self {
        Self {
            seed: asked("SEED", self.seed),
            sessions: asked("SESSIONS", self.sessions),
            turns: asked("TURNS", self.turns),
            per_second: asked("PER_SECOND", self.per_second),
            workers: asked("WORKERS", self.workers),
            model_faults: asked("MODEL_FAULTS", self.model_faults),
            ..self
        }
    }
}

async fn survive(row: u8, name: &str, plan: Plan) {
    let Some(python) = python::with_nats() else { return };
    let plan = plan.or_asked();
    eprintln!("chaos {name}: THROUGHLINE_CHAOS_SEED={}", plan.seed);
    let Some(run) = Run::start(&python, &plan).await else { return };
    let ledgers = run.finish(&plan).await;
    let verdict = judge::judge(&ledgers);
    eprintln!("{}", verdict.figures);
    assert!(
        verdict.broken.is_empty(),
        "seed {}: {} broken promises:\n{}\n\nfaults:\n{}",
        plan.seed,
        verdict.broken.len(),
        verdict.broken.join("\n"),
        ledgers.faults.join("\n")
    );
    verdict.table.named(row, format!("{name} (seed {})", plan.seed)).show();
}

/// 400 messages of 40 sessions; a random worker is killed about every second.
#[tokio::test]
async fn workers_are_killed_all_the_time() {
    let plan = Plan {
        seed: 4,
        sessions: 40,
        turns: 10,
        per_second: 25.0,
        workers: 3,
        mix: Mix::Kills,
        model_faults: 0.0,
        pace: Duration::from_secs(1),
    };
    survive(1, "a worker killed every second, 3 workers", plan).await;
}

/// Everything that can be made to fail on one machine, at once.
#[tokio::test]
async fn everything_fails_now_and_then() {
    let plan = Plan {
        seed: 14,
        sessions: 20,
        turns: 12,
        per_second: 12.0,
        workers: 3,
        mix: Mix::Everything,
        model_faults: 5.0,
        pace: Duration::from_secs(1),
    };
    survive(1, "everything that can fail here, at random", plan).await;
}

/// Messages of fifty sessions at once, and in each session they follow one another at once.
#[tokio::test]
async fn many_sessions_at_once_stay_in_order() {
    let plan = Plan {
        seed: 22,
        sessions: 50,
        turns: 20,
        per_second: 2_000.0,
        workers: 3,
        mix: Mix::Nothing,
        model_faults: 0.0,
        pace: Duration::from_secs(1),
    };
    survive(22, "50 sessions of 20 messages at once", plan).await;
}
