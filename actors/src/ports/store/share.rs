//! What one user may take: how many turns may run, and how many may be open.

use std::num::NonZeroU32;

use throughline_schemas::{Timestamp, UserId};

use super::Opening;

/// How many turns of a user may run at once. A turn whose user has its share already is *held*: it waits although its
/// session is free, until [`Store::start_held`](super::Store::start_held) starts it. A session's order is what it was: what
/// is behind a held turn waits for it. (One that ends while it is held, which takes a dead letter, hands its place on: its
/// user may then have one turn more than its share.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// A user's turns up to this many start whatever else runs.
    pub each: u32,
    /// Beyond that a turn starts only while no turn is held, and fewer than so many turns run of all users
    /// together. 0: never, so that `each` is all that a user has.
    pub all: u32,
}

impl Share {
    /// A user with fewer running turns is never held up by others, where users share what there is.
    pub const LEAST: u32 = 2;

    /// So many for each user, whatever else runs.
    pub fn fixed(each: NonZeroU32) -> Self {
        Self { each: each.get(), all: 0 }
    }

    /// What there is for all users, `all` turns, goes to those who have least.
    pub fn of(all: u32) -> Self {
        Self { each: Self::LEAST, all }
    }

    /// Whether one more turn starts that brings its user to `of_user` running turns and all users to `of_all`.
    pub fn has_room(self, of_user: usize, of_all: usize) -> bool {
        of_user <= self.each as usize || of_all <= self.all as usize
    }
}

/// Limits on the turns of one user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserLimits {
    /// On those that run; `None`: there is no limit, and nothing is counted.
    pub share: Option<Share>,
    /// On those that are open, which wait or run: a message that would be one more fails at once. `None`: there is no
    /// limit.
    pub open: Option<NonZeroU32>,
}

/// Which held turns to start.
#[derive(Debug, Clone)]
pub struct HeldQuery {
    /// As many as this leaves room for; `None`: all.
    pub share: Option<Share>,
    /// Only those of users behind this one; `None`: the list of users begins again.
    pub behind: Option<UserId>,
    /// At most so many. A store may start fewer.
    pub most: usize,
    /// They run since then.
    pub at: Timestamp,
}

/// What was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldStarted {
    /// What the turns begin with: publish it.
    pub openings: Vec<Opening>,
    /// There are users behind this one who were not looked at: ask again, behind it.
    pub behind: Option<UserId>,
    /// Turns are still held, of whichever user.
    pub left: bool,
}

/// Users that are looked at in one call of [`Store::start_held`](super::Store::start_held), most.
pub const HELD_USERS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_ones_own_and_a_share_of_what_there_is() {
        let own = Share { each: 3, all: 0 };
        assert_eq!([1, 3, 4].map(|n| own.has_room(n, 1)), [true, true, false]);
        let common = Share::of(10);
        assert!(common.has_room(2, 99), "the least is everybody's");
        assert!(common.has_room(9, 10) && !common.has_room(3, 11));
    }
}
