//! Leases: for how long a delivery certainly belongs to this process.
//!
//! The server gives a message to another process when it has had no report of it for the ack wait. So the holder
//! counts from the last report that the server has answered, on the monotonic clock. A process that stood still, or
//! could not report, finds its lease lost, and has to ask whether it still has the message before it does anything
//! that others would see.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How much of the ack wait a lease lasts, in tenths: the server's timer began before we had the message.
const TENTHS: u32 = 9;

/// See the module. Clones share their state.
#[derive(Debug, Clone)]
pub struct Lease {
    length: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    until: Instant,
    lost: bool,
}

impl Lease {
    /// The lease of a delivery that was received at `now`.
    pub fn new(ack_wait: Duration, now: Instant) -> Self {
        let length = ack_wait * TENTHS / 10;
        Self { length, state: Arc::new(Mutex::new(State { until: now + length, lost: false })) }
    }

    /// The server has answered a report that was sent at `reported`. A lease that was lost stays lost: another process
    /// may have the message by now, and reports about it are still accepted.
    pub fn renew(&self, reported: Instant, now: Instant) {
        let mut state = self.lock();
        if state.note(now) {
            state.until = state.until.max(reported + self.length);
        }
    }

    /// Whether it was held all the time until `now`.
    pub fn is_held(&self, now: Instant) -> bool {
        self.lock().note(now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Held for a few instructions that cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, now: Instant) -> bool {
        self.lost |= now >= self.until;
        !self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_held_from_report_to_report_and_once_lost_stays_lost() {
        let start = Instant::now();
        let lease = Lease::new(SECOND * 30, start);
        assert!(lease.is_held(start + SECOND * 26));
        lease.renew(start + SECOND * 20, start + SECOND * 21);
        assert!(lease.is_held(start + SECOND * 46), "it counts from the report");
        lease.renew(start + SECOND * 10, start + SECOND * 46);
        assert!(lease.is_held(start + SECOND * 46), "an older report takes nothing away");
        assert!(!lease.is_held(start + SECOND * 48));
        lease.renew(start + SECOND * 48, start + SECOND * 48);
        assert!(!lease.is_held(start + SECOND * 48), "the message may be somebody else's by now");
    }

    #[test]
    fn a_report_that_comes_too_late_does_not_help() {
        let start = Instant::now();
        let lease = Lease::new(SECOND * 30, start);
        lease.renew(start + SECOND * 20, start + SECOND * 60);
        assert!(!lease.is_held(start + SECOND * 21), "nobody looked in time");
    }
}
