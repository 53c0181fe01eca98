//! How many turns run of all users together before further ones are held, where users share what there is.
//!
//! Stages take events in the order of the log, so what runs cannot be overtaken: whatever is started waits in front of
//! the next user. So no more run than can be answered at the same time, and those that are on their way to a call of a
//! model or back from one: as many as are started in [`ON_THE_WAY`]. However fast or slow models are, no user waits longer
//! than that because of who was started before. One call in twenty is left to those who have less than the least
//! ([`Share::LEAST`]), because calls that began together end together, and a user who comes in between would have to wait
//! for that.

use std::time::Duration;

use crate::{policy::retention::LEAST_TURNS, ports::store::Share};

/// Between two looks for held turns while there are any.
pub const PAUSE: Duration = Duration::from_millis(25);

/// How long a turn takes beside its call of a model, with the look that starts it.
pub const ON_THE_WAY: Duration = Duration::from_millis(100);

/// The rate at which turns are started is taken over so long a time: waves of calls that end together make no haste.
pub const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Of so many calls one is left to users who have less than the least.
const ONE_LEFT_OF: u32 = 20;

/// The same share for all: `calls` of models can be made at once, and `started` turns were started within [`RATE_WINDOW`].
pub fn share(calls: u32, started: u32) -> Share {
    let left = (calls / ONE_LEFT_OF).max(u32::from(calls > 1));
    let looks = u32::try_from(RATE_WINDOW.as_millis() / ON_THE_WAY.as_millis()).unwrap_or(u32::MAX);
    Share::of((calls - left).saturating_add(started.div_ceil(looks)).max(Share::LEAST))
}

/// How many turns run, and how many may, so that all of them find room in the log for what they store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRoom {
    /// So many turns may run.
    pub turns: u32,
    /// So many did when that was found out.
    pub running: u32,
}

impl LogRoom {
    /// As many turns run as may, or the log is full.
    pub fn is_short(self) -> bool {
        self.running >= self.turns || self.turns <= LEAST_TURNS
    }

    /// There is room for twice as many turns as run.
    fn is_plenty(self) -> bool {
        self.running <= self.turns / 2 && !self.is_short()
    }
}

/// What is left of a share while the log has room for so many turns. The least that each user has counts only while there
/// is plenty: a publisher can invent any number of users.
pub fn within(share: Option<Share>, room: Option<LogRoom>) -> Option<Share> {
    let Some(LogRoom { turns, running }) = room.filter(|room| !room.is_plenty()) else { return share };
    Some(match share {
        // Users have so many each, and of what others leave they take nothing.
        Some(fixed) if fixed.all == 0 && running < turns => fixed,
        Some(fixed) if fixed.all == 0 => Share { each: 0, all: 0 },
        Some(shared) => Share { each: 0, all: shared.all.min(turns) },
        None => Share { each: 0, all: turns },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_answered_and_what_is_on_its_way() {
        assert_eq!(share(64, 0).all, 61, "three calls are left to others");
        assert_eq!(share(64, 128).all, 68, "64 a second, of which seven are on their way");
        assert_eq!(share(64, 1_400).all, 131, "700 a second");
        assert_eq!(share(8, 0).all, 7);
        assert_eq!(share(1, 0).all, Share::LEAST);
        assert_eq!(share(0, 0).all, Share::LEAST, "where nothing is known somebody still runs");
        assert_eq!(share(64, 0).each, Share::LEAST);
    }

    #[test]
    fn a_log_with_little_room_limits_what_runs() {
        let room = |turns, running| Some(LogRoom { turns, running });
        let (shared, fixed) = (Some(Share::of(70)), Some(Share { each: 3, all: 0 }));
        for share in [None, shared, fixed] {
            assert_eq!(within(share, None), share);
            assert_eq!(within(share, room(100, 50)), share, "there is plenty");
        }
        assert_eq!(within(None, room(100, 51)), Some(Share { each: 0, all: 100 }));
        assert_eq!(within(shared, room(100, 51)), Some(Share { each: 0, all: 70 }));
        assert_eq!(within(shared, room(40, 51)), Some(Share { each: 0, all: 40 }));
        assert_eq!(
            within(None, room(LEAST_TURNS, 0)),
            Some(Share { each: 0, all: LEAST_TURNS }),
            "it is full, and many may begin before the next look"
        );
        assert_eq!(within(fixed, room(100, 99)), fixed);
        assert_eq!(within(fixed, room(100, 100)), Some(Share { each: 0, all: 0 }));
    }
}
