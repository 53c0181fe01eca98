//! Retry as a value: how often, and how long to wait in between.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Exponential backoff with equal jitter: before retry *n* (from 1) the wait is between half and all of
/// `min(max_delay, base_delay × 2^(n-1))`, and never shorter than the other side's own hint.
/// Source: <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/> ("equal jitter").
///
/// ```
/// # use std::time::Duration;
/// use throughline_actors::policy::retry::RetryPolicy;
/// let policy = RetryPolicy { max_attempts: 3, ..RetryPolicy::default() };
/// assert_eq!(policy.delay_after(1, None, u64::MAX), Some(Duration::from_secs(1)));
/// assert_eq!(policy.delay_after(2, None, 0), Some(Duration::from_secs(1)));
/// assert_eq!(policy.delay_after(3, None, 0), None); // three attempts were made
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included.
    pub max_attempts: u32,
    /// Longest wait before the first retry.
    pub base_delay: Duration,
    /// Longest wait before any retry; also the cap on the other side's hints.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Four attempts, from one second up to sixty.
    fn default() -> Self {
        Self { max_attempts: 4, base_delay: Duration::from_secs(1), max_delay: Duration::from_mins(1) }
    }
}

impl RetryPolicy {
    /// The wait before the next attempt after `made` attempts, or `None` if none is left.
    ///
    /// `hint` is how long the other side asked to wait; it is obeyed up to `max_delay`. `random` is any 64 bits.
    pub fn delay_after(&self, made: u32, hint: Option<Duration>, random: u64) -> Option<Duration> {
        if made >= self.max_attempts {
            return None;
        }
        let doublings = made.saturating_sub(1).min(31);
        let full = self.base_delay.saturating_mul(1 << doublings).min(self.max_delay);
        let half = full / 2;
        // As a fraction of one: u32::MAX maps to all of the second half.
        let jittered = half + half.mul_f64(f64::from(Self::jitter(random)) / f64::from(u32::MAX));
        Some(jittered.max(hint.unwrap_or_default().min(self.max_delay)))
    }

    /// The part of random bits on which [`RetryPolicy::delay_after`] depends: the upper half. It is recorded.
    pub fn jitter(random: u64) -> u32 {
        u32::try_from(random >> 32).unwrap_or(u32::MAX)
    }

    /// Random bits that have this part.
    pub fn random_with(jitter: u32) -> u64 {
        u64::from(jitter) << 32
    }

    /// Random bits with which [`RetryPolicy::delay_after`] comes nearest to a wait: for recordings without the jitter.
    pub fn random_for(&self, made: u32, wanted: Duration) -> u64 {
        let (Some(shortest), Some(longest)) =
            (self.delay_after(made, None, 0), self.delay_after(made, None, u64::MAX))
        else {
            return 0;
        };
        let room = longest.saturating_sub(shortest).as_secs_f64();
        if room <= 0.0 {
            return 0;
        }
        let fraction = (wanted.saturating_sub(shortest).as_secs_f64() / room).min(1.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between zero and u32::MAX"
        )]
        let top = (fraction * f64::from(u32::MAX)).round() as u32;
        Self::random_with(top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_jitter_stays_in_the_upper_half() {
        let policy = RetryPolicy { max_attempts: 100, ..RetryPolicy::default() };
        for (made, full) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (99, 60)] {
            let full = Duration::from_secs(full);
            assert_eq!(policy.delay_after(made, None, u64::MAX), Some(full));
            assert_eq!(policy.delay_after(made, None, 0), Some(full / 2));
        }
        assert_eq!(policy.delay_after(100, None, 0), None);
    }

    #[test]
    fn hints_are_obeyed_up_to_the_cap() {
        let policy = RetryPolicy::default();
        let asked = |secs| policy.delay_after(1, Some(Duration::from_secs(secs)), u64::MAX);
        assert_eq!(asked(9), Some(Duration::from_secs(9)));
        assert_eq!(asked(3600), Some(Duration::from_mins(1)));
        assert_eq!(asked(0), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_wait_that_chance_can_come_to_is_come_to_again() {
        let policy = RetryPolicy { max_attempts: 10, ..RetryPolicy::default() };
        for made in 1..10 {
            for random in [0, 1, u64::MAX / 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                let wait = policy.delay_after(made, None, random).unwrap_or_default();
                let again = policy.delay_after(made, None, policy.random_for(made, wait)).unwrap_or_default();
                assert!(wait.abs_diff(again) < Duration::from_micros(1), "{wait:?} {again:?}");
            }
            let (short, long) = (Duration::ZERO, Duration::from_hours(1));
            assert_eq!(policy.random_for(made, short), 0);
            assert_eq!(policy.random_for(made, long) >> 32, u64::from(u32::MAX));
        }
        assert_eq!(policy.random_for(10, Duration::from_secs(1)), 0);
    }

    #[test]
    fn the_recorded_jitter_leads_to_exactly_the_same_wait() {
        let policy = RetryPolicy { max_attempts: 10, ..RetryPolicy::default() };
        for random in [0, 1, 0x1234_5678_9abc_def0, u64::MAX / 3, u64::MAX - 1, u64::MAX] {
            let again = RetryPolicy::random_with(RetryPolicy::jitter(random));
            assert_eq!(policy.delay_after(3, None, again), policy.delay_after(3, None, random));
            assert_eq!(RetryPolicy::jitter(again), RetryPolicy::jitter(random));
        }
    }

    #[test]
    fn absurd_settings_saturate() {
        let policy =
            RetryPolicy { max_attempts: u32::MAX, base_delay: Duration::MAX, max_delay: Duration::MAX };
        assert!(policy.delay_after(u32::MAX - 1, None, 0).is_some());
        let never = RetryPolicy { max_attempts: 0, ..policy };
        assert_eq!(never.delay_after(0, None, 0), None);
    }
}
