//! How many turns run of all users together before further ones are held, where users share what there is.
//!
//! Stages take events in the order of the log, so what runs cannot be overtaken, and what is not held waits in front of
//! whoever comes next. As many turns as there are calls of models at once are answered at the same time. A quarter more is
//! on its way to a call or back from one, so that no call waits for a turn to be started. A model that answers at once
//! needs more: turns are started every [`PAUSE`], and of what has been started since the last few of these all may have
//! ended.

use std::time::Duration;

use crate::ports::store::Share;

/// Between two looks for held turns while there are any.
pub const PAUSE: Duration = Duration::from_millis(25);

/// What was started in so long a time is the least that runs at once: five looks, of which one or two may be late.
pub const LATELY: Duration = Duration::from_millis(125);

/// The same share for all: `calls` of models can be made at once, and `lately` turns were started within [`LATELY`].
pub fn share(calls: u32, lately: u32) -> Share {
    Share::of(calls.saturating_add(calls / 4).max(lately).max(Share::LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_more_than_there_are_calls_unless_turns_end_faster_than_that() {
        assert_eq!(share(64, 10).all, 80);
        assert_eq!(share(64, 300).all, 300);
        assert_eq!(share(0, 0).all, Share::LEAST, "where nothing is known somebody still runs");
        assert_eq!(share(u32::MAX, 0).all, u32::MAX);
        assert_eq!(share(64, 10).each, Share::LEAST);
    }
}
