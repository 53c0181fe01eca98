//! Since when something that has just been read may have been lying in this process's buffers.
//!
//! The server's redelivery timer runs from when it sent a message. A process that stands still (stopped, swapped out)
//! does not know when that was: it reads what came meanwhile when it wakes, and would take it for new. A pulse that
//! misses a beat shows that it stood still, and since when.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

/// Beats within one ack wait: a lease is that much shorter at most.
const BEATS: u32 = 30;
/// Beats that a busy machine may be late by.
const LATE: u32 = 3;
/// What lay in the buffers has been read within this after waking.
const WAKING: Duration = Duration::from_secs(1);

/// The pulse of this process. It ends when it is dropped.
pub(super) struct StallDetector {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    beat: Duration,
    last: Instant,
    /// From when to when it last stood still.
    stood_still: Option<(Instant, Instant)>,
}

impl StallDetector {
    pub(super) fn start(ack_wait: Duration) -> Self {
        let beat = (ack_wait / BEATS).max(Duration::from_millis(1));
        let state = Arc::new(Mutex::new(State::new(beat, Instant::now())));
        let beating = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut beats = interval(beat);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                lock(&beating).beat(Instant::now());
            }
        });
        Self { state, task }
    }

    /// When a message that is read now came at the earliest.
    pub(super) fn came(&self) -> Instant {
        lock(&self.state).came(Instant::now())
    }
}

impl Drop for StallDetector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Held for a few instructions that cannot panic.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn new(beat: Duration, now: Instant) -> Self {
        Self { beat, last: now, stood_still: None }
    }

    fn beat(&mut self, now: Instant) {
        if now.duration_since(self.last) > self.beat * LATE {
            self.stood_still = Some((self.last, now));
        }
        self.last = now;
    }

    fn came(&self, now: Instant) -> Instant {
        match self.stood_still {
            // The next beat has not come yet.
            _ if now.duration_since(self.last) > self.beat * LATE => self.last,
            Some((since, until)) if now.duration_since(until) < WAKING => since,
            Some(_) | None => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_after_waking_came_when_it_fell_asleep() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut stall_detector = State::new(Duration::from_millis(100), begin);
        for ms in [100, 200, 390] {
            stall_detector.beat(at(ms));
            assert_eq!(stall_detector.came(at(ms + 50)), at(ms + 50), "busy is not still");
        }
        // It stands still from 400 to 3400; whatever runs first when it wakes.
        assert_eq!(stall_detector.came(at(3_400)), at(390));
        stall_detector.beat(at(3_401));
        assert_eq!(stall_detector.came(at(3_402)), at(390));
        for ms in [3_501, 3_601, 4_400] {
            stall_detector.beat(at(ms));
        }
        assert_eq!(stall_detector.came(at(4_410)), at(3_601), "a second time");
        stall_detector.beat(at(4_500));
        stall_detector.beat(at(5_500));
        for ms in 56..70 {
            stall_detector.beat(at(ms * 100));
        }
        assert_eq!(stall_detector.came(at(6_950)), at(6_950), "that is over");
    }
}
