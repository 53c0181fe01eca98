//! A limit on how much may be sent in a minute: the token bucket of the `governor` crate (GCRA), with what that does
//! not do: a queue in which everybody's wait is known, and corrections of what was taken.
//!
//! A bucket that refills at the whole limit while a full burst is also allowed would let through twice the limit in
//! a bad minute. Here burst and refill share the limit: never more than the limit is taken in any minute.
//!
//! A correction must not give back what time has given back already, or what was left over from a busy minute would be
//! spent in a later one. So the reservations are remembered until they are corrected, and the bucket's state is computed
//! again as if each had been taken as it was used.

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
        // A bucket is changed through a mutable reference only.
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

/// Reservations that are remembered. Beyond it the oldest ones are taken to have been used as they were taken.
const MAX_LOTS: usize = 10_000;

/// Names a place in the queue, and later what was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation(u64);

/// A place in the queue. Times are in nanoseconds from the bucket's beginning.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    reservation: Reservation,
    since: u64,
    units: u64,
}

/// What was taken at one time.
#[derive(Debug, Clone, Copy)]
struct Taken {
    reservation: Reservation,
    at: u64,
    units: u64,
    corrected: bool,
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
    /// The arrival time before the first of `taken`.
    before: u64,
    /// The arrival time after the last of them.
    after: u64,
    taken: VecDeque<Taken>,
    waiting: VecDeque<Waiting>,
    reservations: u64,
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
            after: 0,
            taken: VecDeque::new(),
            waiting: VecDeque::new(),
            reservations: 0,
        }
    }

    /// A bucket for things that are taken one by one.
    pub fn of_requests(limit: NonZeroU32, now: Instant) -> Self {
        Self::new(limit, share(limit, BURSTS_PER_LIMIT), now)
    }

    /// A bucket for things that are taken many at a time. A reservation that is larger than the burst has to be waited for
    /// even when the queue is empty, so small limits have a larger share for it: up to `reservation`, at most half of the
    /// limit.
    pub fn of_lots(limit: NonZeroU32, reservation: NonZeroU32, now: Instant) -> Self {
        Self::new(limit, share(limit, BURSTS_PER_LIMIT).max(share(limit, 2).min(reservation)), now)
    }

    /// The most that is let through in a minute.
    pub fn limit(&self) -> NonZeroU32 {
        self.limit
    }

    /// Takes a place at the end of the queue.
    pub fn join(&mut self, units: u64, now: Instant) -> Reservation {
        self.reservations += 1;
        let reservation = Reservation(self.reservations);
        self.waiting.push_back(Waiting { reservation, since: self.at(now), units });
        reservation
    }

    /// How long it will be until it is this one's turn, if nothing is corrected meanwhile. Nothing, for one that does
    /// not wait.
    pub fn wait(&self, reservation: Reservation, now: Instant) -> Duration {
        let mut arrival = self.after;
        for waiting in &self.waiting {
            let turn = self.turn(arrival, waiting);
            if waiting.reservation == reservation {
                return Duration::from_nanos(turn.saturating_sub(self.at(now)));
            }
            arrival = self.later(arrival, turn, waiting.units);
        }
        Duration::ZERO
    }

    /// It is this one's turn: takes what it waited for.
    pub fn take(&mut self, reservation: Reservation, now: Instant) {
        let Some(place) = self.waiting.iter().position(|waiting| waiting.reservation == reservation) else {
            return;
        };
        let Some(Waiting { units, .. }) = self.waiting.remove(place) else { return };
        let at = self.at(now);
        self.after = self.later(self.after, at, units);
        self.taken.push_back(Taken { reservation, at, units, corrected: false });
        self.forget();
    }

    /// Gives up the place in the queue, or what was taken.
    pub fn leave(&mut self, reservation: Reservation) {
        self.waiting.retain(|waiting| waiting.reservation != reservation);
        self.correct(reservation, 0);
    }

    /// Says how much of a reservation was used: nothing, less than was taken, or more, which those who come next wait for.
    pub fn correct(&mut self, reservation: Reservation, used: u64) {
        // Recent ones are near the end.
        let Some(taken) = self.taken.iter_mut().rev().find(|taken| taken.reservation == reservation) else {
            return;
        };
        let changed = taken.units != used;
        (taken.units, taken.corrected) = (used, true);
        self.forget();
        if changed {
            let later = |arrival, taken: &Taken| self.later(arrival, taken.at, taken.units);
            self.after = self.taken.iter().fold(self.before, later);
        }
    }

    /// Says that a reservation was used as it was taken, as far as is known.
    pub fn keep(&mut self, reservation: Reservation) {
        if let Some(taken) = self.taken.iter_mut().rev().find(|taken| taken.reservation == reservation) {
            taken.corrected = true;
        }
    }

    /// Forgets what will not change any more.
    fn forget(&mut self) {
        while let Some(first) =
            self.taken.front().filter(|first| first.corrected || self.taken.len() > MAX_LOTS)
        {
            self.before = self.later(self.before, first.at, first.units);
            self.taken.pop_front();
        }
    }

    /// When a reservation may be taken that is next after `arrival`.
    fn turn(&self, arrival: u64, waiting: &Waiting) -> u64 {
        let burst = u64::from(self.burst.get());
        let Some(at_once) = u32::try_from(waiting.units.min(burst)).ok().and_then(NonZeroU32::new) else {
            return waiting.since;
        };
        self.arrival.0.store(arrival, Ordering::Relaxed);
        self.now.0.store(waiting.since, Ordering::Relaxed);
        let wait = match self.limiter.check_n(at_once) {
            Ok(Ok(())) => 0,
            Ok(Err(not_until)) => nanos(not_until.wait_time_from(self.now.now())),
            // It is no larger than the burst.
            Err(_) => u64::MAX,
        };
        // What exceeds a burst has to be refilled while everybody else waits, too.
        let rest = self.unit.saturating_mul(waiting.units.saturating_sub(burst));
        waiting.since.saturating_add(wait).saturating_add(rest)
    }

    /// The arrival time after so much was taken at that time.
    fn later(&self, arrival: u64, at: u64, units: u64) -> u64 {
        // What was not used at all does not begin anything.
        if units == 0 { arrival } else { arrival.max(at).saturating_add(self.unit.saturating_mul(units)) }
    }

    fn at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.begun))
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

    /// A queue that is served in time, as callers do it: who is next, and when.
    fn next_turn(bucket: &Bucket, waiting: &[(Reservation, u64)], now: Instant) -> Option<(usize, Instant)> {
        let turns = waiting
            .iter()
            .enumerate()
            .map(|(place, (reservation, _))| (place, now + bucket.wait(*reservation, now)));
        turns.min_by_key(|(_, at)| *at)
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
                let reservation = bucket.join(1, now);
                now += bucket.wait(reservation, now);
                bucket.take(reservation, now);
                bucket.keep(reservation);
                uses.push((now, 1));
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
            let (mut now, mut spent) = (begun, Vec::new());
            let mut waiting: Vec<(Reservation, u64)> = Vec::new();
            // To be corrected at a time.
            let mut open: Vec<(Instant, Reservation, u64)> = Vec::new();
            for _ in 0..800 {
                let until = now
                    + Duration::from_millis(match random(&mut state, 50) {
                        0 => random(&mut state, 90_000),
                        1..=25 => random(&mut state, 900),
                        _ => 0,
                    });
                // Until then, whatever is due: a correction, or the turn of one that waits.
                loop {
                    let due = open
                        .iter()
                        .enumerate()
                        .map(|(place, (at, ..))| (place, *at))
                        .min_by_key(|(_, at)| *at);
                    let turn = next_turn(&bucket, &waiting, now);
                    match (due, turn) {
                        (Some((place, at)), turn)
                            if at <= until && turn.is_none_or(|(_, turn)| at <= turn) =>
                        {
                            now = now.max(at);
                            let (_, reservation, used) = open.swap_remove(place);
                            bucket.correct(reservation, used);
                        }
                        (_, Some((place, at))) if at <= until => {
                            now = at;
                            let (reservation, reserved) = waiting.remove(place);
                            bucket.take(reservation, now);
                            let used = random(&mut state, reserved + 1);
                            open.push((
                                now + Duration::from_millis(random(&mut state, 5_000)),
                                reservation,
                                used,
                            ));
                            spent.push((now, used));
                        }
                        _ => break,
                    }
                }
                now = until;
                if waiting.len() < 20 {
                    let reserved = 1 + random(&mut state, largest);
                    waiting.push((bucket.join(reserved, now), reserved));
                } else {
                    bucket.leave(waiting.swap_remove(0).0);
                }
            }
            let worst = worst_minute(spent);
            assert!(worst <= limit, "seed {seed}: {worst} in a minute of at most {limit}");
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = worst as f64 / limit as f64;
            fullest = fullest.max(share);
        }
        assert!(fullest > 0.8, "what is given back can be used: {fullest} of the limit at best");
    }

    #[test]
    fn everybody_s_wait_is_known_and_a_place_given_up_is_the_next_one_s() {
        let now = Instant::now();
        // A burst of 6, then one every 60/55 s.
        let mut bucket = Bucket::of_requests(some(60), now);
        let reservations: Vec<_> = (0..9).map(|_| bucket.join(1, now)).collect();
        let waits = |bucket: &Bucket| {
            reservations
                .iter()
                .map(|reservation| bucket.wait(*reservation, now).as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(&bucket), [0, 0, 0, 0, 0, 0, 1090, 2181, 3272]);
        bucket.take(reservations[0], now);
        assert_eq!(waits(&bucket), [0, 0, 0, 0, 0, 0, 1090, 2181, 3272]);
        bucket.leave(reservations[6]);
        assert_eq!(waits(&bucket)[6..], [0, 1090, 2181], "one that does not wait has no wait");
        bucket.leave(reservations[0]);
        assert_eq!(waits(&bucket)[7..], [0, 1090], "what was taken and not used is there for the next one");
        let nothing = bucket.join(0, now);
        assert_eq!(bucket.wait(nothing, now), Duration::ZERO);
    }

    #[test]
    fn those_who_wait_are_sooner_served_when_less_was_used_than_was_taken() {
        let now = Instant::now();
        // A burst of 6,000, then 900 a second.
        let mut bucket = Bucket::of_lots(some(60_000), some(1), now);
        let first = bucket.join(6_000, now);
        bucket.take(first, now);
        let second = bucket.join(5_000, now);
        assert!(bucket.wait(second, now) > 5 * SECOND);
        bucket.correct(first, 900);
        assert_eq!(bucket.wait(second, now), Duration::ZERO);
    }

    #[test]
    fn a_lot_larger_than_the_burst_waits_until_it_has_been_refilled() {
        let now = Instant::now();
        // A burst of 6,000, then 6,001 a minute.
        let mut bucket = Bucket::of_lots(some(12_000), some(8_000), now);
        let large = bucket.join(9_000, now);
        assert!(
            (29 * SECOND..31 * SECOND).contains(&bucket.wait(large, now)),
            "{:?}",
            bucket.wait(large, now)
        );
        assert!((9 * SECOND..11 * SECOND).contains(&bucket.wait(large, now + 20 * SECOND)));
        let small = bucket.join(1, now);
        assert!(bucket.wait(small, now) > 31 * SECOND, "nobody overtakes it");
    }

    #[test]
    fn what_was_underestimated_is_paid_by_those_who_come_next() {
        let now = Instant::now();
        let mut bucket = Bucket::of_lots(some(60_000), some(1), now);
        let first = bucket.join(1_000, now);
        bucket.take(first, now);
        bucket.correct(first, 12_000);
        let second = bucket.join(3_000, now);
        let wait = bucket.wait(second, now);
        assert!((9 * SECOND..11 * SECOND).contains(&wait), "9,000 too many at 900 a second: {wait:?}");
    }

    #[test]
    fn idle_time_is_not_given_back_twice() {
        let now = Instant::now();
        // A burst of 6,000. A lot of which little is used, and long after it one that is used up.
        let mut bucket = Bucket::of_lots(some(60_000), some(1), now);
        let early = bucket.join(6_000, now);
        bucket.take(early, now);
        let later = now + 6 * SECOND;
        let late = bucket.join(5_000, later);
        bucket.take(late, later);
        bucket.keep(late);
        bucket.correct(early, 1);
        let third = bucket.join(6_000, later);
        let wait = bucket.wait(third, later);
        assert!(wait > 5 * SECOND, "there is a burst of 6,000, of which 1,000 are left: {wait:?}");
    }
}
