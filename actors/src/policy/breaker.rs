//! A circuit breaker without a clock: every admission is a permit with a generation, and only a permit of the
//! current generation moves the state, so a straggler from before a trip can neither close nor re-open it.
//!
//! ```text
//!            failure_limit consecutive failures
//!   Closed ------------------------------------> Open
//!     ^                                          |  cooldown
//!     |  probe succeeds                          v
//!     +------------------------------------- HalfOpen (one probe)
//!                                                |  probe fails
//!                                                +------------> Open
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// When a breaker trips, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerPolicy {
    /// Consecutive failures that open it.
    pub failure_limit: u32,
    /// How long it stays open before one probe is admitted.
    pub cooldown: Duration,
}

impl Default for BreakerPolicy {
    /// Five consecutive failures, thirty seconds.
    fn default() -> Self {
        Self { failure_limit: 5, cooldown: Duration::from_secs(30) }
    }
}

/// How long a probe may take before another one is admitted, unless the cooldown is longer: longer than any operation of
/// a database, whose breaker's cooldown is short. A probe that is given up says so; this is for one that is lost.
const PROBE_LEASE: Duration = Duration::from_secs(15);

/// The state, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Everything is admitted.
    Closed,
    /// Nothing is admitted.
    Open,
    /// One probe is admitted; its outcome decides.
    HalfOpen,
}

impl BreakerState {
    /// The name used in logs, metrics and control messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Leave to make one call. Give it back with [`Breaker::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not settled holds a half-open breaker until its lease runs out"]
pub struct Permit {
    generation: u64,
}

/// What became of an admitted call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// The dependency answered.
    Success,
    /// The dependency failed, or that is not known.
    Failure,
    /// It says nothing about the dependency (it asked to slow down).
    Neutral,
}

/// No call may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// When it is worth asking again.
    pub retry_at: Instant,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probe_lease: Option<Instant> },
}

/// The state machine.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    generation: u64,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, state: State::Closed { failures: 0 }, generation: 0 }
    }

    /// The present state.
    pub fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks leave for one call.
    ///
    /// # Errors
    /// While open, and while half-open with the probe under way. A probe that is not settled within one cooldown, or
    /// 15 s, is given up, so that a lost permit cannot hold the breaker for ever.
    pub fn admit(&mut self, now: Instant) -> Result<Permit, Refusal> {
        match self.state {
            State::Closed { .. } => {}
            State::Open { until } if now < until => return Err(Refusal { retry_at: until }),
            State::HalfOpen { probe_lease: Some(lease) } if now < lease => {
                return Err(Refusal { retry_at: lease });
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                self.generation += 1;
                self.state =
                    State::HalfOpen { probe_lease: Some(now + self.policy.cooldown.max(PROBE_LEASE)) };
            }
        }
        Ok(Permit { generation: self.generation })
    }

    /// Reports how an admitted call went. A permit of an older generation changes nothing.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is given back once")]
    pub fn settle(&mut self, permit: Permit, outcome: CallOutcome, now: Instant) {
        if permit.generation != self.generation {
            return;
        }
        match (self.state, outcome) {
            (State::Closed { .. } | State::HalfOpen { .. }, CallOutcome::Success) => self.close(),
            (State::Closed { failures }, CallOutcome::Failure) => {
                let failures = failures.saturating_add(1);
                if failures >= self.policy.failure_limit {
                    self.open(now);
                } else {
                    self.state = State::Closed { failures };
                }
            }
            (State::HalfOpen { .. }, CallOutcome::Failure) => self.open(now),
            // The probe showed nothing: the next caller may probe.
            (State::HalfOpen { .. }, CallOutcome::Neutral) => {
                self.state = State::HalfOpen { probe_lease: None }
            }
            (State::Closed { .. }, CallOutcome::Neutral) | (State::Open { .. }, _) => {}
        }
    }

    /// Closes it, whatever was reported before. Permits under way change nothing any more.
    pub fn reset(&mut self) {
        self.generation += 1;
        self.state = State::Closed { failures: 0 };
    }

    fn close(&mut self) {
        if !matches!(self.state, State::Closed { .. }) {
            self.generation += 1;
        }
        self.state = State::Closed { failures: 0 };
    }

    fn open(&mut self, now: Instant) {
        self.generation += 1;
        self.state = State::Open { until: now + self.policy.cooldown };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const POLICY: BreakerPolicy = BreakerPolicy { failure_limit: 3, cooldown: Duration::from_secs(30) };

    fn fail(breaker: &mut Breaker, times: u32, now: Instant) {
        for _ in 0..times {
            let permit = breaker.admit(now).unwrap();
            breaker.settle(permit, CallOutcome::Failure, now);
        }
    }

    #[test]
    fn it_opens_after_consecutive_failures_only() {
        let now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        fail(&mut breaker, 2, now);
        let permit = breaker.admit(now).unwrap();
        breaker.settle(permit, CallOutcome::Success, now);
        fail(&mut breaker, 2, now);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, 1, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(now), Err(Refusal { retry_at: now + POLICY.cooldown }));
    }

    #[test]
    fn after_the_cooldown_exactly_one_probe_is_admitted_and_decides() {
        let start = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        fail(&mut breaker, 3, start);
        let just_before = start + POLICY.cooldown.checked_sub(Duration::from_millis(1)).unwrap();
        assert!(breaker.admit(just_before).is_err());

        let after = start + POLICY.cooldown;
        let probe = breaker.admit(after).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.admit(after).is_err(), "a second probe");
        breaker.settle(probe, CallOutcome::Failure, after);
        assert_eq!(breaker.state(), BreakerState::Open);

        let later = after + POLICY.cooldown;
        let probe = breaker.admit(later).unwrap();
        breaker.settle(probe, CallOutcome::Success, later);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_straggler_from_before_the_trip_moves_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        let straggler = breaker.admit(now).unwrap();
        let second = breaker.admit(now).unwrap();
        fail(&mut breaker, 3, now);
        breaker.settle(straggler, CallOutcome::Success, now);
        assert_eq!(breaker.state(), BreakerState::Open);
        let after = now + POLICY.cooldown;
        let _probe = breaker.admit(after).unwrap();
        breaker.settle(second, CallOutcome::Failure, after);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "taken for the probe");
    }

    #[test]
    fn a_lost_probe_does_not_hold_the_breaker_for_ever() {
        let start = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        fail(&mut breaker, 3, start);
        let after = start + POLICY.cooldown;
        let lost = breaker.admit(after).unwrap();
        let next = breaker.admit(after + POLICY.cooldown).unwrap();
        breaker.settle(lost, CallOutcome::Failure, after + POLICY.cooldown);
        assert_eq!(breaker.state(), BreakerState::HalfOpen, "the lost one came back and was obeyed");
        breaker.settle(next, CallOutcome::Success, after + POLICY.cooldown);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn rate_limits_pace_and_do_not_trip() {
        let now = Instant::now();
        let mut breaker = Breaker::new(POLICY);
        for _ in 0..100 {
            let permit = breaker.admit(now).unwrap();
            breaker.settle(permit, CallOutcome::Neutral, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&mut breaker, 3, now);
        let after = now + POLICY.cooldown;
        let probe = breaker.admit(after).unwrap();
        breaker.settle(probe, CallOutcome::Neutral, after);
        assert!(breaker.admit(after).is_ok(), "the next caller probes");
    }
}
