//! A limit on how much may be sent in a minute: the token bucket of the `governor` crate (GCRA), with what that does
//! not do: a place in the queue is taken at once and its wait known, and what was taken is corrected afterwards.
//!
//! A bucket that refills at the whole limit while a full burst is also allowed would let through twice the limit in
//! a bad minute. Here burst and refill share the limit: never more than the limit is taken in any minute.
//!
//! A correction must not give back what time has given back already, or what was left over from a busy minute would be
//! spent in a later one. So the lots taken are remembered until they are corrected, and the bucket's state is computed
//! anew as if each had been taken as it was used.

use std::{
    collections::VecDeque,
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

/// Lots that are remembered. Beyond it the oldest ones are taken to have been used as they were taken.
const MAX_LOTS: usize = 10_000;

/// What was taken at one time.
#[derive(Debug, Clone, Copy)]
struct Taken {
    lot: u64,
    /// When it may be used, in nanoseconds from the bucket's beginning.
    at: u64,
    units: u64,
    corrected: bool,
}

/// Names what was taken, for its correction.
#[derive(Debug, Clone, Copy)]
pub struct Lot(u64);

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
    /// The arrival time before the first of `taken`.
    before: u64,
    /// In the order of `at`.
    taken: VecDeque<Taken>,
    lots: u64,
}

impl Bucket {
    /// A full bucket for `limit` units a minute, up to `burst` of them at once.
    pub fn new(limit: NonZeroU32, burst: NonZeroU32, now: Instant) -> Self {
        let burst = burst.min(limit);
        // In a minute that begins with a full bucket, the burst and then one unit after the other are taken, the last
        // one just before its end: `limit` in all.
        let refilled = limit.get() - burst.get() + 1;
        let unit = nanos(MINUTE).div_ceil(refilled.into());
        let quota = Quota::with_period(Duration::from_nanos(unit))
            .unwrap_or_else(|| Quota::per_minute(limit))
            .allow_burst(burst);
        let (clock, arrival) = (Given::default(), ArrivalTime::default());
        let limiter = RateLimiter::new(quota, arrival.clone(), clock.clone());
        Self {
            limit,
            burst,
            unit,
            begun: now,
            now: clock,
            arrival,
            limiter,
            before: 0,
            taken: VecDeque::new(),
            lots: 0,
        }
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

    /// Takes `units`, and says how long to wait before using them.
    pub fn take(&mut self, units: u64, now: Instant) -> (Lot, Duration) {
        let now = nanos(now.saturating_duration_since(self.begun));
        self.now.0.store(now, Ordering::Relaxed);
        let burst = u64::from(self.burst.get());
        let at_once = u32::try_from(units.min(burst)).ok().and_then(NonZeroU32::new);
        let wait = match at_once.map(|units| self.limiter.check_n(units)) {
            // Nothing is taken, or there is enough.
            None | Some(Ok(Ok(()))) => 0,
            Some(Ok(Err(not_until))) => nanos(not_until.wait_time_from(self.now.now())),
            // It is no larger than the burst.
            Some(Err(_)) => u64::MAX,
        };
        // What exceeds a burst has to be refilled while everybody else waits, too.
        let wait = wait.saturating_add(self.unit.saturating_mul(units.saturating_sub(burst)));
        self.lots += 1;
        let at = now.saturating_add(wait);
        let taken = Taken { lot: self.lots, at, units, corrected: false };
        let place = self.taken.partition_point(|other| other.at <= at);
        let is_last = place == self.taken.len();
        self.taken.insert(place, taken);
        if is_last {
            let arrival = self.arrival.0.load(Ordering::Relaxed);
            self.arrival.0.store(self.after(arrival, &taken), Ordering::Relaxed);
            self.forget();
        } else {
            self.settle();
        }
        (Lot(self.lots), Duration::from_nanos(wait))
    }

    /// Says how much of a lot was used: nothing, less than was taken, or more, which those who come next wait for.
    pub fn correct(&mut self, lot: Lot, used: u64) {
        // Recent ones are near the end.
        if let Some(taken) = self.taken.iter_mut().rev().find(|taken| taken.lot == lot.0) {
            (taken.units, taken.corrected) = (used, true);
            self.settle();
        }
    }

    /// Says that a lot was used as it was taken, as far as anybody knows.
    pub fn keep(&mut self, lot: Lot) {
        if let Some(taken) = self.taken.iter_mut().rev().find(|taken| taken.lot == lot.0) {
            taken.corrected = true;
        }
    }

    /// Computes the arrival time anew.
    fn settle(&mut self) {
        self.forget();
        let arrival = self.taken.iter().fold(self.before, |arrival, taken| self.after(arrival, taken));
        self.arrival.0.store(arrival, Ordering::Relaxed);
    }

    /// Forgets what will not change any more.
    fn forget(&mut self) {
        while let Some(first) =
            self.taken.front().filter(|first| first.corrected || self.taken.len() > MAX_LOTS)
        {
            self.before = self.after(self.before, first);
            self.taken.pop_front();
        }
    }

    fn after(&self, arrival: u64, taken: &Taken) -> u64 {
        // What was not used at all does not begin anything.
        if taken.units == 0 {
            return arrival;
        }
        arrival.max(taken.at).saturating_add(self.unit.saturating_mul(taken.units))
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
        for seed in 1..=50 {
            let mut state = seed;
            let limit = 1 + random(&mut state, 300);
            let begun = Instant::now();
            let mut bucket = Bucket::of_requests(some(u32::try_from(limit).unwrap()), begun);
            let (mut now, mut uses) = (begun, Vec::new());
            for _ in 0..500 {
                // Sometimes idle for a while, often many at the same time.
                now += Duration::from_millis(match random(&mut state, 20) {
                    0 => random(&mut state, 90_000),
                    1..=5 => random(&mut state, 900),
                    _ => 0,
                });
                let (lot, wait) = bucket.take(1, now);
                bucket.keep(lot);
                uses.push((now + wait, 1));
            }
            let worst = worst_minute(uses);
            assert!(worst <= limit, "seed {seed}: {worst} in a minute of at most {limit}");
        }
    }

    #[test]
    fn lots_of_any_size_keep_to_the_limit_also_when_what_is_left_over_is_given_back() {
        let mut fullest = 0.0_f64;
        for seed in 1..=50 {
            let mut state = seed;
            let limit = 1_000 + random(&mut state, 100_000);
            let largest = 1 + random(&mut state, limit.min(20_000));
            let begun = Instant::now();
            let mut bucket = Bucket::of_lots(some(u32::try_from(limit).unwrap()), some(8_000), begun);
            let (mut now, mut uses) = (begun, Vec::new());
            // To be corrected at a time.
            let mut open: Vec<(Instant, Lot, u64)> = Vec::new();
            for _ in 0..500 {
                now += Duration::from_millis(match random(&mut state, 50) {
                    0 => random(&mut state, 90_000),
                    1..=25 => random(&mut state, 900),
                    _ => 0,
                });
                open.retain(|(at, lot, used)| {
                    if *at <= now {
                        bucket.correct(*lot, *used);
                    }
                    *at > now
                });
                let reserved = 1 + random(&mut state, largest);
                let used = random(&mut state, reserved + 1);
                let (lot, wait) = bucket.take(reserved, now);
                let at = now + wait;
                open.push((at + Duration::from_millis(random(&mut state, 5_000)), lot, used));
                uses.push((at, used));
            }
            let worst = worst_minute(uses);
            assert!(worst <= limit, "seed {seed}: {worst} in a minute of at most {limit}");
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = worst as f64 / limit as f64;
            fullest = fullest.max(share);
        }
        assert!(fullest > 0.8, "what is given back can be used: {fullest} of the limit at best");
    }

    #[test]
    fn waits_are_known_at_once_and_grow_with_the_queue() {
        let now = Instant::now();
        // A burst of 6, then one every 60/55 s.
        let mut bucket = Bucket::of_requests(some(60), now);
        let taken: Vec<_> = (0..8).map(|_| bucket.take(1, now)).collect();
        let waits: Vec<_> = taken.iter().map(|(_, wait)| wait.as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 1090, 2181]);
        for (lot, _) in &taken[6..] {
            bucket.correct(*lot, 0);
        }
        assert_eq!(bucket.take(1, now).1.as_millis(), 1090, "a place given back is the next one's");
        assert_eq!(bucket.take(0, now).1, Duration::ZERO);
    }

    #[test]
    fn a_lot_larger_than_the_burst_waits_until_it_has_been_refilled() {
        let now = Instant::now();
        let mut bucket = Bucket::of_lots(some(12_000), some(8_000), now);
        // A burst of 6,000, then 6,001 a minute.
        assert_eq!(bucket.take(6_000, now).1, Duration::ZERO);
        let (_, wait) = bucket.take(9_000, now + MINUTE);
        assert!((29 * SECOND..31 * SECOND).contains(&wait), "{wait:?}");
    }

    #[test]
    fn what_was_underestimated_is_paid_by_those_who_come_next() {
        let now = Instant::now();
        let mut bucket = Bucket::of_lots(some(60_000), some(1), now);
        let (lot, wait) = bucket.take(1_000, now);
        assert_eq!(wait, Duration::ZERO);
        bucket.correct(lot, 12_000);
        let (_, wait) = bucket.take(3_000, now);
        assert!((9 * SECOND..11 * SECOND).contains(&wait), "9,000 too many at 900 a second: {wait:?}");
    }

    #[test]
    fn idle_time_is_not_given_back_twice() {
        let now = Instant::now();
        let mut bucket = Bucket::of_lots(some(60_000), some(1), now);
        // A burst of 6,000. A lot of which little is used, and long after it one that is used up.
        let (early, _) = bucket.take(6_000, now);
        let later = now + 6 * SECOND;
        let (late, _) = bucket.take(5_000, later);
        bucket.keep(late);
        bucket.correct(early, 1);
        let (_, wait) = bucket.take(6_000, later);
        assert!(wait > 5 * SECOND, "there is a burst of 6,000, of which 1,000 are left: {wait:?}");
    }
}
