//! What earlier sweeps found out, counted on this process's monotonic clock.

use std::{collections::HashMap, time::Duration};

use throughline_schemas::{StageName, Timestamp, WorkflowId};
use tokio::time::Instant;

use crate::ports::{bus::Position, store::RunningTurn};

/// Every so many sweeps all turns are listed, not only those that started behind the last one that was seen: a process
/// whose clock is behind starts turns before it.
const WHOLE_PASS_EVERY: u32 = 6;

/// Turns that run, as far as sweeps have seen.
#[derive(Default)]
pub(super) struct Seen {
    /// The last turn that was looked at, in the order in which turns start: a pass lists what started behind it.
    until: Option<Start>,
    /// Whether turns were listed that no pass had listed before.
    has_news: bool,
    /// Which pass it is, and what it has listed.
    pass: Pass,
    /// The end of the log at the last look.
    pub(super) last: u64,
    turns: HashMap<WorkflowId, Watched>,
}

/// A turn's place in the order in which turns start.
type Start = (Timestamp, WorkflowId);

#[derive(Default)]
struct Pass {
    number: u32,
    /// It lists what started behind this one.
    from: Option<Start>,
    /// It has listed up to this one.
    to: Option<Start>,
}

struct Watched {
    turn: RunningTurn,
    first_seen: Instant,
    /// The pass that listed it last.
    listed_in: u32,
    place: Place,
    /// Its latest event, if that was settled without a successor: the next look acts.
    lost: Option<u64>,
    /// When it will have run for too long.
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has not been looked at yet, or has to be again.
    Unknown,
    /// A stage has its event in hand: it is looked at again when that event is settled.
    Held { stage: StageName, sequence: u64 },
}

impl Seen {
    /// Begins to list turns: behind the last one that was looked at, or with the first.
    pub(super) fn begin_pass(&mut self) {
        let number = self.pass.number.wrapping_add(1);
        let is_whole = number % WHOLE_PASS_EVERY == 1;
        let from = if is_whole { None } else { self.until.clone() };
        self.pass = Pass { number, to: from.clone(), from };
    }

    /// Behind which turn the next page begins.
    pub(super) fn listed_to(&self) -> Option<(Timestamp, WorkflowId)> {
        self.pass.to.clone()
    }

    /// A turn that runs, as it is listed.
    pub(super) fn note(&mut self, turn: RunningTurn, now: Instant) {
        self.pass.to = Some(start(&turn));
        let number = self.pass.number;
        self.has_news |= !self.turns.contains_key(&turn.workflow_id);
        let watched = self.turns.entry(turn.workflow_id.clone()).or_insert_with(|| Watched {
            turn,
            first_seen: now,
            listed_in: number,
            place: Place::Unknown,
            lost: None,
            deadline: None,
        });
        watched.listed_in = number;
    }

    /// Whether turns were listed for the first time since this was asked last.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Forgets turns that have not been looked at and were not listed again: they have ended meanwhile, as most do.
    pub(super) fn end_pass(&mut self, is_complete: bool) {
        let Pass { number, from, to } = &self.pass;
        self.turns.retain(|_, watched| {
            let place = start(&watched.turn);
            let covered = from.as_ref().is_none_or(|from| place > *from)
                && (is_complete || to.as_ref().is_some_and(|to| place <= *to));
            watched.place != Place::Unknown || watched.listed_in == *number || !covered
        });
    }

    /// Whether there may be a turn to look at.
    pub(super) fn have_work(&self, now: Instant, interval: Duration) -> bool {
        self.turns.values().any(|watched| match watched.place {
            Place::Unknown => watched.first_seen + interval <= now,
            Place::Held { .. } => true,
        })
    }

    /// Turns to look at, those that started first before the others, at most so many.
    pub(super) fn due(
        &self,
        now: Instant,
        interval: Duration,
        position: &Position,
        most: usize,
    ) -> Vec<RunningTurn> {
        let is_due = |watched: &&Watched| match watched.place {
            Place::Unknown => watched.first_seen + interval <= now,
            Place::Held { stage, sequence } => {
                position.settled.get(&stage).is_some_and(|settled| sequence <= *settled)
            }
        };
        let mut due: Vec<&RunningTurn> =
            self.turns.values().filter(is_due).map(|watched| &watched.turn).collect();
        due.sort_by_key(|turn| (turn.started_at, &turn.workflow_id));
        due.into_iter().take(most).cloned().collect()
    }

    /// A turn is being looked at.
    pub(super) fn look(&mut self, turn: &RunningTurn) {
        self.until = self.until.take().max(Some(start(turn)));
    }

    /// Turns whose deadline has passed, and for how long they have run since they were first seen.
    pub(super) fn overdue(&self, now: Instant, most: usize) -> Vec<(RunningTurn, Duration)> {
        let late = self.turns.values().filter(|watched| watched.deadline.is_some_and(|at| at <= now));
        late.take(most).map(|watched| (watched.turn.clone(), now - watched.first_seen)).collect()
    }

    /// A stage works on a turn.
    pub(super) fn hold(&mut self, id: &WorkflowId, stage: StageName, sequence: u64) {
        if let Some(watched) = self.turns.get_mut(id) {
            watched.place = Place::Held { stage, sequence };
            watched.lost = None;
        }
    }

    /// The latest event of a turn was settled without a successor. Whether this is the first time that it is seen so.
    pub(super) fn lose(&mut self, id: &WorkflowId, stage: StageName, sequence: u64) -> bool {
        let Some(watched) = self.turns.get_mut(id) else { return false };
        watched.place = Place::Held { stage, sequence };
        watched.lost.replace(sequence) != Some(sequence)
    }

    pub(super) fn needs_deadline(&self, id: &WorkflowId) -> bool {
        self.turns.get(id).is_some_and(|watched| watched.deadline.is_none())
    }

    /// Says when a turn will have run for `limit`: by its age, if that is known, and never later than that long after it
    /// was first seen.
    pub(super) fn set_deadline(&mut self, id: &WorkflowId, limit: Duration, age: Option<Duration>) {
        if let Some(watched) = self.turns.get_mut(id) {
            let by_sight = watched.first_seen + limit;
            let by_age = age.map(|age| Instant::now() + limit.saturating_sub(age));
            watched.deadline = Some(by_age.map_or(by_sight, |by_age| by_age.min(by_sight)));
        }
    }

    /// A turn does not run any more.
    pub(super) fn forget(&mut self, id: &WorkflowId) {
        self.turns.remove(id);
    }

    /// Every turn has to be looked at again. For how long they have been seen stays.
    pub(super) fn look_again(&mut self) {
        for watched in self.turns.values_mut() {
            watched.place = Place::Unknown;
            watched.lost = None;
        }
    }
}

fn start(turn: &RunningTurn) -> Start {
    (turn.started_at, turn.workflow_id.clone())
}
