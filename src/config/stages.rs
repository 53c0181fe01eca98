//! `[stages.*]`, and the retry and breaker keys that stages share with data sources.

use std::time::Duration;

use throughline_actors::{
    policy::{breaker::BreakerPolicy, retry::RetryPolicy},
    supervision::settings::StageSettings,
};

use super::reader::Section;

/// How often and how soon a failed call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `max_attempts`: the first one included.
    pub max_attempts: u32,
    /// `base_delay_ms`: before the second attempt; it doubles from there.
    pub base_delay: Duration,
    /// `max_delay_ms`: the longest wait between two attempts.
    pub max_delay: Duration,
}

impl Retry {
    /// As the engine wants it.
    pub fn policy(self) -> RetryPolicy {
        let Self { max_attempts, base_delay, max_delay } = self;
        RetryPolicy { max_attempts, base_delay, max_delay }
    }

    pub(super) fn read(s: &mut Section<'_>, d: Self) -> Self {
        let retry = Self {
            max_attempts: s.within("max_attempts", d.max_attempts, 1..=100),
            base_delay: s.millis("base_delay_ms", d.base_delay, 0..=3_600_000),
            max_delay: s.millis("max_delay_ms", d.max_delay, 0..=3_600_000),
        };
        let (base, max) = (retry.base_delay.as_millis(), retry.max_delay.as_millis());
        if base > max {
            // The one that was set is the one to change; when both were, either will do.
            let key = if retry.max_delay == d.max_delay { "base_delay_ms" } else { "max_delay_ms" };
            s.conflict(key, format!("base_delay_ms ({base}) must not exceed max_delay_ms ({max})"));
        }
        retry
    }
}

/// When a dependency is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// `breaker_failures`: it opens after so many failures in a row.
    pub failures: u32,
    /// `breaker_cooldown_ms`: how long it stays open before one probe is let through.
    pub cooldown: Duration,
}

impl Default for Breaker {
    /// 5 failures, 30 s.
    fn default() -> Self {
        Self { failures: 5, cooldown: Duration::from_secs(30) }
    }
}

impl Breaker {
    /// As the engine wants it.
    pub fn policy(self) -> BreakerPolicy {
        BreakerPolicy { failure_limit: self.failures, cooldown: self.cooldown }
    }

    pub(super) fn read(s: &mut Section<'_>, d: Self) -> Self {
        Self {
            failures: s.within("breaker_failures", d.failures, 1..=1000),
            cooldown: s.millis("breaker_cooldown_ms", d.cooldown, 1..=3_600_000),
        }
    }
}

/// An answer is not held up for long by a source that it can do without.
const SOURCES: Retry =
    Retry { max_attempts: 2, base_delay: Duration::from_millis(100), max_delay: Duration::from_secs(1) };

/// Slots of the stages that wait for others. Waiting costs memory (some 90 MiB for so many model calls) and no CPU time, and
/// whatever has no slot waits in the server: 64 slots would be 13 workflows a second with a model of five seconds.
const WAITING: usize = 1_024;

/// `[stages.<name>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Messages that one process works on at once, 1 to 65536. Default 256 for `input` and `persistence`, 64 for `context`,
    /// 1024 for `external` and `generation`.
    pub concurrency: usize,
    /// Default 4 attempts, 1 s doubling up to 60 s; for `external` 2 attempts, 100 ms doubling up to 1 s.
    pub retry: Retry,
    /// Default 5 failures, 30 s.
    pub breaker: Breaker,
}

impl Stage {
    /// As the engine wants it.
    pub fn settings(&self) -> StageSettings {
        let Self { concurrency, retry, breaker } = *self;
        StageSettings { concurrency, retry: retry.policy(), breaker: breaker.policy() }
    }

    fn with_concurrency(concurrency: usize) -> Self {
        let retry =
            Retry { max_attempts: 4, base_delay: Duration::from_secs(1), max_delay: Duration::from_mins(1) };
        Self { concurrency, retry, breaker: Breaker::default() }
    }

    fn read(s: &mut Section<'_>, d: Self) -> Self {
        Self {
            concurrency: s.within("concurrency", d.concurrency, 1..=65_536),
            retry: Retry::read(s, d.retry),
            breaker: Breaker::read(s, d.breaker),
        }
    }
}

/// `[stages]`: the same keys for every stage.
#[derive(Clone, Debug)]
pub struct Stages {
    /// Validation and admission.
    pub input: Stage,
    /// Preferences and recent turns.
    pub context: Stage,
    /// Data sources.
    pub external: Stage,
    /// The model.
    pub generation: Stage,
    /// The database.
    pub persistence: Stage,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            input: Stage::with_concurrency(256),
            context: Stage::with_concurrency(64),
            external: Stage { retry: SOURCES, ..Stage::with_concurrency(WAITING) },
            generation: Stage::with_concurrency(WAITING),
            persistence: Stage::with_concurrency(256),
        }
    }
}

impl Stages {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let d = Self::default();
        Self {
            input: s.section("input", |s| Stage::read(s, d.input)),
            context: s.section("context", |s| Stage::read(s, d.context)),
            external: s.section("external", |s| Stage::read(s, d.external)),
            generation: s.section("generation", |s| Stage::read(s, d.generation)),
            persistence: s.section("persistence", |s| Stage::read(s, d.persistence)),
        }
    }
}
