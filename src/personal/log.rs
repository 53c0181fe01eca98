//! What of the event log and of the dead letters is theirs.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use throughline_actors::ports::{bus::BusError, log::Log as _};
use throughline_schemas::{EventType, WorkflowId};

use super::whom::{Matcher, Owned};
use crate::{
    bus::nats::{NatsBus, StoredEvent, bodies_of},
    dead,
};

/// Longer than a delivery may be in hand after its lease ended, beyond the ack wait.
const HAND_BACK: Duration = Duration::from_secs(5);

/// Their messages of the event log.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Where each is, and its workflow, in the order of the log.
    messages: Vec<(u64, Owned)>,
    /// Where the last end of each workflow is.
    ends: HashMap<String, u64>,
    bodies: HashSet<String>,
    /// Bodies that others name.
    kept: HashSet<String>,
    /// Where reading goes on.
    next: u64,
}

impl Events {
    /// Reads on to the end of the log; `each` is given what is theirs. Whether there was any.
    pub(super) async fn read_on(
        &mut self,
        bus: &NatsBus,
        matcher: &mut Matcher,
        mut each: impl FnMut(&StoredEvent) -> std::io::Result<()>,
    ) -> Result<bool, super::PersonalError> {
        let before = self.messages.len();
        loop {
            let events = bus.events_from(self.next.max(1)).await?;
            let Some(last) = events.last() else { return Ok(self.messages.len() > before) };
            self.next = last.sequence + 1;
            for event in &events {
                let named = bodies_of(event);
                let Some(owned) = matcher.owned(event) else {
                    self.kept.extend(named);
                    continue;
                };
                self.bodies.extend(named);
                if event.event_type().is_some_and(EventType::is_end)
                    && let Some(workflow) = &owned.workflow
                {
                    self.ends.insert(workflow.clone(), event.sequence);
                }
                each(event)?;
                self.messages.push((event.sequence, owned));
            }
        }
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        self.messages.iter().map(|(sequence, _)| *sequence).collect()
    }

    /// Workflows of theirs on which a stage may still work: they have no end, or it was told so lately that a delivery may
    /// still be in hand.
    ///
    /// What lies before the first message that a stage has not settled is settled. What lies behind it is, when the last
    /// word on its workflow is older than a delivery may be in hand: a message that is not there is not delivered again.
    pub(super) async fn unsettled(&self, bus: &NatsBus) -> Result<Unsettled, BusError> {
        let Some((needed, _)) = bus.fill().await?.needed else { return Ok(Unsettled::default()) };
        let in_question = self.messages.iter().filter(|(sequence, _)| *sequence >= needed);
        let (mut last_words, mut open) = (BTreeSet::new(), HashSet::new());
        for (sequence, owned) in in_question {
            match &owned.workflow {
                Some(workflow) => match self.ends.get(workflow) {
                    Some(end) => drop(last_words.insert((*end).max(*sequence))),
                    None => drop(open.insert(workflow.clone())),
                },
                // It belongs to no workflow, so that it ends as a dead letter, and nobody is told.
                None => drop(last_words.insert(*sequence)),
            }
        }
        let just_ended = match last_words.last() {
            // Of a message that has been removed meanwhile, the one behind it tells.
            Some(last) => bus.age_at(*last).await?.is_some_and(|age| age < bus.ack_wait() + HAND_BACK),
            None => false,
        };
        Ok(Unsettled { open: open.len() as u64, just_ended: u64::from(just_ended) })
    }
}

/// What a stage may still work on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unsettled {
    /// Workflows without an end.
    pub(super) open: u64,
    /// 1, if there are such that ended only just.
    pub(super) just_ended: u64,
}

/// Their dead letters.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Where they are.
    pub(super) sequences: Vec<u64>,
    /// Where the records are of what was done with them.
    pub(super) records: Vec<u64>,
    /// Where their messages were in the event log.
    pub(super) of_events: BTreeSet<u64>,
    bodies: HashSet<String>,
    kept: HashSet<String>,
}

impl Letters {
    /// Reads all of them; `each` is given what is theirs.
    pub(super) async fn read(
        bus: &NatsBus,
        matcher: &mut Matcher,
        mut each: impl FnMut(&StoredEvent) -> std::io::Result<()>,
    ) -> Result<Self, super::PersonalError> {
        let (mut found, mut next) = (Self::default(), 1);
        let mut theirs = HashSet::new();
        loop {
            let stored = bus.letters_from(next).await?;
            let Some(last) = stored.last() else { return Ok(found) };
            next = last.sequence + 1;
            for stored in &stored {
                let named = bodies_of(stored);
                if let Some(of) = record_of(bus, stored) {
                    // What was done with a letter comes behind it, and outlives it.
                    if theirs.contains(&of) || is_their_record(stored, matcher) {
                        found.records.push(stored.sequence);
                        each(stored)?;
                    }
                    continue;
                }
                let Some((_, of_event)) = matcher.owned_letter(stored) else {
                    found.kept.extend(named);
                    continue;
                };
                found.bodies.extend(named);
                found.of_events.extend(of_event);
                found.sequences.push(stored.sequence);
                theirs.insert(stored.sequence);
                each(stored)?;
            }
        }
    }
}

/// The large bodies that only they name.
pub(super) fn bodies(events: &Events, letters: &Letters) -> Vec<String> {
    let theirs: HashSet<_> = events.bodies.union(&letters.bodies).collect();
    let is_kept = |name: &String| events.kept.contains(name) || letters.kept.contains(name);
    theirs.into_iter().filter(|name| !is_kept(name)).cloned().collect()
}

/// The letter that a message of the stream of dead letters is a record of, if it is one.
fn record_of(bus: &NatsBus, stored: &StoredEvent) -> Option<u64> {
    let (first, letter) = stored.subject.rsplit_once('.')?;
    let letter = letter.parse().ok()?;
    (bus.namespace().dead_record(letter).rsplit_once('.').map(|(records, _)| records) == Some(first))
        .then_some(letter)
}

fn is_their_record(stored: &StoredEvent, matcher: &Matcher) -> bool {
    let Ok(record) = serde_json::from_slice::<dead::Record>(&stored.body) else { return false };
    let token = |id: Option<String>| id.and_then(|id| WorkflowId::new(id).ok()).map(|id| id.token());
    matcher.knows(token(record.workflow).as_deref()) || matcher.knows(token(record.retry).as_deref())
}
