//! A limit on how much may be sent in a minute: the token bucket of the `governor` crate (GCRA), with what that does
//! not do: a place in the queue is taken at once and its wait known, and what was taken can be corrected afterwards.
//!
//! A bucket that refills at the whole limit while a full burst is also allowed would let through twice the limit in
//! a bad minute. Here burst and refill share the limit: never more than the limit is taken in any minute.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);

/// How many times the burst fits into the limit. Providers, too, divide their minute: `OpenAI`'s documentation says
/// that 60,000 a minute may be enforced as 1,000 a second.
const BURSTS_PER_LIMIT: u32 = 10;

/// The theoretical arrival time, which is all of the state, in nanoseconds from the bucket's beginning. The limiter
/// keeps it to itself otherwise; corrections need it.
#[derive(Debug, Clone, Default)]
struct ArrivalTime(Arc<AtomicU64>);

impl ArrivalTime {
    fn later(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_add(by), Ordering::Relaxed);
    }

    fn sooner(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(by), Ordering::Relaxed);
    }
}

impl StateStore for ArrivalTime {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // A bucket is changed through a mutable reference only: nobody else is here.
        let (outcome, next) = decide(Some(Nanos::from(self.0.load(Ordering::Relaxed))))?;
        self.0.store(next.into(), Ordering::Relaxed);
        Ok(outcome)
    }
}

/// The time that the caller gives.
#[derive(Debug, Clone, Default)]
struct Given(Arc<AtomicU64>);

impl Clock for Given {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Bucket {
    limit: NonZeroU32,
    burst: NonZeroU32,
    /// Time in which one unit is refilled, in nanoseconds.
    unit: u64,
    begun: Instant,
    now: Given,
    arrival: ArrivalTime,
    limiter: RateLimiter<NotKeyed, ArrivalTime, Given, NoOpMiddleware<Duration>>,
}

impl Bucket {
    /// A full bucket for `limit` units a minute, up to `burst` of them at once.
    pub fn new(limit: NonZeroU32, burst: NonZeroU32, now: Instant) -> Self {
        let burst = burst.min(limit);
        // In a minute that begins with a full bucket, the burst and then one unit after the other are taken, the last
        // one just before its end: `limit` in all.
        let refilled = limit.get() - burst.get() + 1;
        let unit = MINUTE / refilled;
        let quota = Quota::with_period(unit).unwrap_or_else(|| Quota::per_minute(limit)).allow_burst(burst);
        let (clock, arrival) = (Given::default(), ArrivalTime::default());
        let limiter = RateLimiter::new(quota, arrival.clone(), clock.clone());
        Self { limit, burst, unit: nanos(unit), begun: now, now: clock, arrival, limiter }
    }

    /// A bucket for things that are taken one by one.
    pub fn of_requests(limit: NonZeroU32, now: Instant) -> Self {
        Self::new(limit, share(limit, BURSTS_PER_LIMIT), now)
    }

    /// A bucket for things that are taken in lots. A lot that is larger than the burst has to be waited for even when
    /// nobody else is there, so small limits have a larger share for it: up to `lot`, at most half of the limit.
    pub fn of_lots(limit: NonZeroU32, lot: NonZeroU32, now: Instant) -> Self {
        Self::new(limit, share(limit, BURSTS_PER_LIMIT).max(share(limit, 2).min(lot)), now)
    }

    /// The most that is let through in a minute.
    pub fn limit(&self) -> NonZeroU32 {
        self.limit
    }

    /// Takes `units`, and says how long to wait before using them. What is taken is taken in the order of the calls.
    pub fn take(&mut self, units: u64, now: Instant) -> Duration {
        self.now.0.store(nanos(now.saturating_duration_since(self.begun)), Ordering::Relaxed);
        let Some(at_once) = u32::try_from(units).map_or(Some(self.burst), NonZeroU32::new) else {
            return Duration::ZERO;
        };
        let at_once = at_once.min(self.burst);
        let wait = match self.limiter.check_n(at_once) {
            Ok(Ok(())) => Duration::ZERO,
            Ok(Err(not_until)) => {
                self.arrival.later(self.time_of(at_once.get().into()));
                not_until.wait_time_from(self.now.now())
            }
            // It is no larger than the burst.
            Err(_) => Duration::MAX,
        };
        let rest = self.time_of(units - u64::from(at_once.get()));
        self.arrival.later(rest);
        wait.saturating_add(Duration::from_nanos(rest))
    }

    /// Takes more of what has been used already: it turned out to be more than was taken before.
    pub fn owe(&mut self, units: u64, now: Instant) {
        // Waiting for it is for those who come next.
        let _ = self.take(units, now);
    }

    /// Gives back what was taken and will not be used.
    pub fn give_back(&mut self, units: u64) {
        self.arrival.sooner(self.time_of(units));
    }

    fn time_of(&self, units: u64) -> u64 {
        self.unit.saturating_mul(units)
    }
}

fn share(limit: NonZeroU32, parts: u32) -> NonZeroU32 {
    NonZeroU32::new(limit.get() / parts).unwrap_or(NonZeroU32::MIN)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn some(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    /// Splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// The most that was used in any minute, of uses with their times.
    fn worst_minute(mut uses: Vec<(Instant, u64)>) -> u64 {
        uses.sort_by_key(|(at, _)| *at);
        let (mut window, mut sum, mut worst) = (VecDeque::new(), 0, 0);
        for (at, units) in uses {
            window.push_back((at, units));
            sum += units;
            while window.front().is_some_and(|(first, _)| *first + MINUTE <= at) {
                sum -= window.pop_front().map_or(0, |(_, units)| units);
            }
            worst = worst.max(sum);
        }
        worst
    }

    #[test]
    fn never_more_than_the_limit_is_taken_in_any_minute() {
        for seed in 1..=200 {
            let mut state = seed;
            let limit = 1 + random(&mut state, 300);
            let begun = Instant::now();
            let mut bucket = Bucket::of_requests(some(u32::try_from(limit).unwrap()), begun);
            let (mut now, mut uses) = (begun, Vec::new());
            for _ in 0..2_000 {
                // Sometimes idle for a while, often many at the same time.
                now += Duration::from_millis(match random(&mut state, 20) {
                    0 => random(&mut state, 90_000),
                    1..=5 => random(&mut state, 900),
                    _ => 0,
                });
                uses.push((now + bucket.take(1, now), 1));
            }
            let worst = worst_minute(uses);
            assert!(worst <= limit, "seed {seed}: {worst} in a minute of at most {limit}");
        }
    }

    #[test]
    fn lots_of_any_size_keep_to_the_limit_also_when_what_is_left_over_is_given_back() {
        for seed in 1..=200 {
            let mut state = seed;
            let limit = 1_000 + random(&mut state, 100_000);
            let begun = Instant::now();
            let mut bucket = Bucket::of_lots(some(u32::try_from(limit).unwrap()), some(8_000), begun);
            let (mut now, mut uses) = (begun, Vec::new());
            // Reserved and not used, to be given back at a time.
            let mut left: Vec<(Instant, u64)> = Vec::new();
            for _ in 0..2_000 {
                now += Duration::from_millis(random(&mut state, 500));
                left.retain(|(at, units)| {
                    if *at <= now {
                        bucket.give_back(*units);
                    }
                    *at > now
                });
                let reserved = 1 + random(&mut state, limit.min(20_000));
                let used = 1 + random(&mut state, reserved);
                let at = now + bucket.take(reserved, now);
                left.push((at + Duration::from_millis(random(&mut state, 5_000)), reserved - used));
                uses.push((at, used));
            }
            let worst = worst_minute(uses);
            assert!(worst <= limit, "seed {seed}: {worst} in a minute of at most {limit}");
        }
    }

    #[test]
    fn waits_are_known_at_once_and_grow_with_the_queue() {
        let now = Instant::now();
        // A burst of 6, then one every 60/55 s.
        let mut bucket = Bucket::of_requests(some(60), now);
        let waits: Vec<_> = (0..8).map(|_| bucket.take(1, now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 1090, 2181]);
        bucket.give_back(2);
        assert_eq!(bucket.take(1, now).as_millis(), 1090, "a place given back is the next one's");
        assert_eq!(bucket.take(0, now), Duration::ZERO);
    }

    #[test]
    fn a_lot_larger_than_the_burst_waits_until_it_has_been_refilled() {
        let now = Instant::now();
        let mut bucket = Bucket::of_lots(some(12_000), some(8_000), now);
        // A burst of 6,000, then 6,001 a minute.
        assert_eq!(bucket.take(6_000, now), Duration::ZERO);
        let later = now + MINUTE;
        let wait = bucket.take(9_000, later);
        assert!((29 * SECOND..31 * SECOND).contains(&wait), "{wait:?}");
    }

    #[test]
    fn what_was_underestimated_is_paid_by_those_who_come_next() {
        let now = Instant::now();
        let mut bucket = Bucket::of_lots(some(60_000), some(1), now);
        assert_eq!(bucket.take(1_000, now), Duration::ZERO);
        bucket.owe(11_000, now);
        let wait = bucket.take(3_000, now);
        assert!((9 * SECOND..11 * SECOND).contains(&wait), "9,000 too many at 900 a second: {wait:?}");
    }
}
