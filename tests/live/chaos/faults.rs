//! What fails, and when: a function of the seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Which faults a run has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Nothing fails.
    Nothing,
    /// Workers are killed.
    Kills,
    /// Workers are killed, paused and stopped; the NATS server crashes; the database is locked.
    Everything,
}

/// One fault. Workers are named by their place, not by who is there.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// `kill -9`; another one takes the place.
    Kill { place: usize },
    /// Stands still, longer or shorter than the ack wait, and wakes.
    Pause { place: usize, time: Duration },
    /// SIGTERM; another one takes the place at once.
    Stop { place: usize },
    /// The nats-server is killed and comes back after a while.
    CrashNats { down: Duration },
    /// Another program holds the database's lock.
    LockDatabase { time: Duration },
}

/// Faults and the waits before them, without end.
pub struct Schedule {
    chance: StdRng,
    mix: Mix,
    workers: usize,
    pace: Duration,
}

impl Schedule {
    pub fn new(seed: u64, mix: Mix, workers: usize, pace: Duration) -> Self {
        Self { chance: StdRng::seed_from_u64(seed), mix, workers, pace }
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.chance.random_range(from..=to))
    }
}

impl Iterator for Schedule {
    type Item = (Duration, Fault);

    fn next(&mut self) -> Option<(Duration, Fault)> {
        let wait = self.pace.mul_f64(self.chance.random_range(0.5..1.5));
        let place = self.chance.random_range(0..self.workers);
        let fault = match (self.mix, self.chance.random_range(0..100)) {
            (Mix::Nothing, _) => return None,
            (Mix::Kills, _) | (Mix::Everything, 0..40) => Fault::Kill { place },
            (Mix::Everything, 40..60) => Fault::Pause { place, time: self.millis(200, 5_000) },
            (Mix::Everything, 60..75) => Fault::Stop { place },
            (Mix::Everything, 75..90) => Fault::CrashNats { down: self.millis(0, 2_000) },
            (Mix::Everything, _) => Fault::LockDatabase { time: self.millis(200, 2_000) },
        };
        Some((wait, fault))
    }
}
