//! When finished work makes room in the log, and up to where it may. Pure.

use std::time::Duration;

use throughline_schemas::StageName;

use crate::ports::log::{BODIES, Fill, Room};

/// From this fill on, in percent of what the log may take, finished work is removed.
pub const BEGIN_PERCENT: u64 = 80;
/// Down to this fill, in percent: what is removed at once is worth a request, and an archive of its own.
pub const DOWN_TO_PERCENT: u64 = 65;
/// From this fill on, in percent, what has just been finished goes, too: a log that refuses input is worse. Where what is
/// still needed and what lies behind it take as much, results of finished work go from there (`policy/thinning.rs`), and
/// few turns run.
pub const URGENT_PERCENT: u64 = 90;
/// From this fill on, in percent, every process makes room, also without the turn to: the process that has it may be gone.
/// And few turns run until there is room again, whatever takes it: removing may be slower than they are.
pub const FULL_PERCENT: u64 = 95;
/// Messages of a turn that is saved: its input and what each stage stored.
const MESSAGES_PER_TURN: u64 = 6;
/// So many turns may run however full the log is: only those that end make room.
pub const LEAST_TURNS: u32 = 16;
/// What was stored within this time stays while there is other room: a process that stood still for a moment finds what
/// became of its work, and a reader what it has just waited for.
pub const JUST_FINISHED: Duration = Duration::from_mins(2);
/// Events that are removed for their age are so much older than they must be: one request an hour is enough.
pub const AGE_SLACK: Duration = Duration::from_hours(1);

/// What keeps the log from being shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A turn that is open in the database.
    Turn,
    /// A message that a stage has not settled, or that waits to be dead-lettered.
    Stage(StageName),
}

/// Up to where nothing is needed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Everything below this sequence belongs to finished work.
    pub before: u64,
    /// What stands there; `None`: the end of the log.
    pub held_by: Option<Holder>,
}

/// The positions of the stages, as one look at the log shows them.
pub fn settled(fill: &Fill) -> Floor {
    match fill.needed {
        Some((before, stage)) => Floor { before, held_by: Some(Holder::Stage(stage)) },
        None => Floor { before: fill.last + 1, held_by: None },
    }
}

/// The lowest of what two looks at the stages and one, later, at the database say.
///
/// An input is in the hand of its stage until its turn stands in the database: the transaction comes before the
/// acknowledgement. So asking the stages first and the database afterwards shows it in one of the two. The other way
/// round it could be in neither. The same holds for the end of a turn: its event is published before the message that led
/// to it is acknowledged, so what is not published yet lies above the position of its stage. The stages' earlier positions
/// count as well, so that a message that the server has just given up on, and whose advisory is not stored yet, is not
/// taken for settled.
pub fn floor(earlier: Floor, now: Floor, oldest_open: Option<u64>) -> Floor {
    let open = oldest_open.map(|before| Floor { before, held_by: Some(Holder::Turn) });
    let stages = if earlier.before < now.before { earlier } else { now };
    open.filter(|open| open.before <= stages.before).unwrap_or(stages)
}

/// How full the log is, in percent; of a log without a limit zero.
pub fn percent(fill: &Fill) -> u64 {
    percent_of(fill.bytes, fill.max_bytes)
}

/// How full the store of large bodies is, in percent.
pub fn bodies_percent(fill: &Fill) -> u64 {
    bodies(fill).map_or(0, |room| percent_of(room.bytes, room.max_bytes))
}

/// How many bytes of large bodies have to go for their store to have room again, if it is nearly full.
pub fn surplus_bodies(fill: &Fill) -> Option<u64> {
    let room = bodies(fill)?;
    (bodies_percent(fill) >= BEGIN_PERCENT)
        .then(|| room.bytes.saturating_sub(share(room.max_bytes.unwrap_or(u64::MAX), DOWN_TO_PERCENT, 100)))
}

fn bodies(fill: &Fill) -> Option<&Room> {
    fill.others.iter().find(|room| room.holds == BODIES)
}

fn percent_of(bytes: u64, max_bytes: Option<u64>) -> u64 {
    max_bytes.filter(|max| *max > 0).map_or(0, |max| share(bytes, 100, max))
}

/// Below which sequence messages have to go for the log to have room again, if it is nearly full. Sizes are taken to be
/// alike; where they are not the next look corrects it.
pub fn for_room(fill: &Fill) -> Option<u64> {
    let max = fill.max_bytes?;
    if percent(fill) < BEGIN_PERCENT || fill.bytes == 0 {
        return None;
    }
    let surplus = fill.bytes.saturating_sub(share(max, DOWN_TO_PERCENT, 100));
    let span = fill.last.saturating_sub(fill.first).saturating_add(1);
    Some(fill.first.saturating_add(share(span, surplus, fill.bytes).max(1)).min(fill.last.saturating_add(1)))
}

/// How many bytes have to go from behind what is still needed, if that takes nearly the whole log.
pub fn for_open_work(fill: &Fill, floor: Floor) -> Option<u64> {
    let max = fill.max_bytes?;
    let kept = bytes_from(fill, floor.before);
    (percent_of(kept, fill.max_bytes) >= URGENT_PERCENT)
        .then(|| kept.saturating_sub(share(max, DOWN_TO_PERCENT, 100)))
}

/// How many turns may run so that all of them have room to end; `None`: any number, or nothing is known yet.
///
/// They may come to take half of the log, by the mean size of what is in it; the other half is for what is larger, for
/// inputs, and for what has ended. While what is needed and what lies behind it takes nearly the whole log, or the log is
/// full, it is the least.
pub fn turns_with_room(fill: &Fill, floor: Floor) -> Option<u32> {
    let max = fill.max_bytes.filter(|_| fill.bytes > 0)?;
    if for_open_work(fill, floor).is_some() || percent(fill) >= FULL_PERCENT {
        return Some(LEAST_TURNS);
    }
    let turns = share(max / 2 / MESSAGES_PER_TURN, fill.messages, fill.bytes);
    Some(u32::try_from(turns).unwrap_or(u32::MAX).max(LEAST_TURNS))
}

/// About what the messages from a sequence on take, in bytes. Sizes are taken to be alike.
fn bytes_from(fill: &Fill, sequence: u64) -> u64 {
    let end = fill.last.saturating_add(1);
    share(end.saturating_sub(sequence.max(fill.first)), fill.bytes, end.saturating_sub(fill.first))
}

/// `part * of / whole`, without overflow on the way.
pub(crate) fn share(part: u64, of: u64, whole: u64) -> u64 {
    let share = u128::from(part) * u128::from(of) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// How long it takes from `bytes` to `limit` at this growth; `None`: it does not grow.
pub(crate) fn until(bytes: u64, limit: u64, per_second: f64) -> Option<Duration> {
    if per_second <= 0.0 {
        return None;
    }
    Duration::try_from_secs_f64(float(limit.saturating_sub(bytes)) / per_second).ok()
}

#[expect(clippy::cast_precision_loss, reason = "a forecast needs no more than 52 bits")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use throughline_schemas::Timestamp;

    use super::*;

    fn fill(bytes: u64, max_bytes: Option<u64>) -> Fill {
        Fill {
            now: Timestamp::from_unix_ms(0),
            first: 101,
            last: 200,
            messages: 100,
            bytes,
            max_bytes,
            needed: None,
            others: Vec::new(),
        }
    }

    #[test]
    fn a_log_is_full_when_its_growth_has_taken_what_is_left() {
        assert_eq!(until(500_000, 1_000_000, 10_000.0), Some(Duration::from_secs(50)));
        assert_eq!(until(1, 2, 0.0), None, "it does not grow");
    }

    #[test]
    fn room_is_made_from_the_first_threshold_on_down_to_the_second() {
        assert_eq!(for_room(&fill(79, Some(100))), None);
        // 15 of 80 bytes are 18 of the hundred messages.
        assert_eq!(for_room(&fill(80, Some(100))), Some(119));
        assert_eq!(for_room(&fill(100, Some(100))), Some(136));
        assert_eq!(for_room(&fill(u64::MAX, None)), None, "no limit");
        assert_eq!(for_room(&fill(0, Some(0))), None);
        assert_eq!(for_room(&fill(u64::MAX, Some(1))), Some(201), "never beyond the end");
        assert_eq!(percent(&fill(u64::MAX, Some(u64::MAX))), 100);
    }

    #[test]
    fn large_bodies_have_thresholds_of_their_own() {
        let with = |bytes, max_bytes| Fill {
            others: vec![Room { holds: BODIES, bytes, max_bytes }],
            ..fill(1, None)
        };
        assert_eq!(surplus_bodies(&with(79, Some(100))), None);
        assert_eq!(surplus_bodies(&with(80, Some(100))), Some(15));
        assert_eq!(surplus_bodies(&with(u64::MAX, None)), None, "no limit");
        assert_eq!(surplus_bodies(&fill(99, Some(100))), None, "not told");
        assert_eq!(bodies_percent(&with(90, Some(100))), 90);
    }

    #[test]
    fn turns_that_run_have_room_to_end() {
        let held = |before| Floor { before, held_by: Some(Holder::Turn) };
        let free = Floor { before: 201, held_by: None };
        // Messages of ten bytes: 83 turns of six take 4,980.
        assert_eq!(turns_with_room(&fill(1_000, Some(10_000)), free), Some(83));
        assert_eq!(turns_with_room(&fill(1_000, Some(1_000)), free), Some(LEAST_TURNS));
        assert_eq!(
            turns_with_room(&fill(9_000, Some(10_000)), held(101)),
            Some(LEAST_TURNS),
            "all of it is kept"
        );
        assert_eq!(
            turns_with_room(&fill(9_500, Some(10_000)), free),
            Some(LEAST_TURNS),
            "it can go, and has not yet"
        );
        assert_eq!(turns_with_room(&fill(4_700, Some(10_000)), free), Some(17));
        assert_eq!(turns_with_room(&fill(1_000, None), held(101)), None);
        let empty = Fill { first: 1, last: 0, messages: 0, ..fill(0, Some(10_000)) };
        assert_eq!(turns_with_room(&empty, free), None, "nothing is known");
    }

    #[test]
    fn what_keeps_the_log_is_thinned_when_it_takes_nearly_all_of_it() {
        let held = |before| Floor { before, held_by: Some(Holder::Turn) };
        assert_eq!(for_open_work(&fill(95, Some(100)), held(101)), Some(30));
        assert_eq!(for_open_work(&fill(89, Some(100)), held(101)), None);
        assert_eq!(for_open_work(&fill(95, Some(100)), held(150)), None, "the rest makes room");
    }

    #[test]
    fn the_lowest_of_all_that_is_needed_decides() {
        let stage = |before| Floor { before, held_by: Some(Holder::Stage(StageName::Input)) };
        let end = Floor { before: 201, held_by: None };
        let turn = |before| Floor { before, held_by: Some(Holder::Turn) };
        for (earlier, now, open, expected) in [
            (end, end, None, end),
            (stage(150), end, None, stage(150)),
            (end, stage(150), None, stage(150)),
            (stage(120), stage(150), Some(130), stage(120)),
            (stage(140), stage(150), Some(130), turn(130)),
            (end, end, Some(300), end),
        ] {
            assert_eq!(floor(earlier, now, open), expected, "{earlier:?} {now:?} {open:?}");
        }
        let needed = Fill { needed: Some((7, StageName::Context)), ..fill(1, None) };
        assert_eq!(settled(&needed), Floor { before: 7, held_by: Some(Holder::Stage(StageName::Context)) });
        assert_eq!(settled(&fill(1, None)), end);
    }
}
