//! The log, and each stage's place in it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use throughline_schemas::{StageName, Subject, Timestamp};
use tokio::time::Instant;

/// One stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place in its log, from 1.
    pub sequence: u64,
    /// Subject it was published on.
    pub subject: String,
    /// Headers, as published.
    pub headers: Vec<(String, String)>,
    /// Body, as published.
    pub body: Bytes,
    /// When it was stored, by the fake's clock.
    pub stored_at: Timestamp,
}

impl Stored {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
pub(super) struct Log {
    /// By sequence, with gaps.
    messages: Vec<Stored>,
    last: u64,
    subjects: HashSet<String>,
    stages: HashMap<StageName, Cursor>,
}

/// A stage's place.
#[derive(Default)]
struct Cursor {
    /// Sequence up to which the log has been looked at.
    looked_at: u64,
    /// Delivered and neither acknowledged nor terminated.
    pending: PendingSet,
    /// Given up on, and not dead-lettered yet.
    undeliverable: PendingSet,
}

/// Messages that are or will be delivered, by sequence.
#[derive(Default)]
pub(super) struct PendingSet(BTreeMap<u64, Pending>);

impl PendingSet {
    /// It must not come again.
    pub(super) fn finish(&mut self, sequence: u64) {
        self.0.remove(&sequence);
    }

    /// It must come at this instant and not before; with `returned`, it is in nobody's hand until then.
    pub(super) fn postpone(&mut self, sequence: u64, due: Instant, returned: bool) {
        if let Some(pending) = self.0.get_mut(&sequence) {
            pending.due = due;
            pending.returned = returned;
        }
    }

    fn first_due(&mut self, now: Instant) -> Option<(u64, &mut Pending)> {
        self.0
            .iter_mut()
            .find(|(_, pending)| pending.due <= now)
            .map(|(sequence, pending)| (*sequence, pending))
    }

    fn soonest(&self) -> Next {
        match self.0.values().map(|pending| pending.due).min() {
            Some(at) => Next::At(at),
            None => Next::Nothing,
        }
    }
}

struct Pending {
    delivered: u32,
    due: Instant,
    /// Given back; it waits for its delay, in nobody's hand.
    returned: bool,
}

/// What there is for a stage now.
pub(super) enum Next {
    /// A message, delivered for the so-manieth time.
    Message(Stored, u32),
    /// A message that another inbox was given and did not answer for.
    Left(Stored),
    /// Nothing before this instant.
    At(Instant),
    /// Nothing until something is published or answered.
    Nothing,
}

impl Log {
    pub(super) fn append(
        &mut self,
        subject: String,
        headers: Vec<(String, String)>,
        body: Bytes,
        stored_at: Timestamp,
    ) -> u64 {
        self.last += 1;
        let sequence = self.last;
        self.subjects.insert(subject.clone());
        self.messages.push(Stored { sequence, subject, headers, body, stored_at });
        sequence
    }

    pub(super) fn all(&self) -> &[Stored] {
        &self.messages
    }

    pub(super) fn has(&self, subject: &str) -> bool {
        self.subjects.contains(subject)
    }

    /// The last body of a subject, if it is that of the event which belongs there.
    pub(super) fn event(&self, subject: &str, of: &Subject) -> Option<Bytes> {
        if !self.has(subject) {
            return None;
        }
        let last = self.messages.iter().rev().find(|stored| stored.subject == subject)?;
        of.is_of(&last.body).then(|| last.body.clone())
    }

    /// Takes what is no event from the end of an event's subject.
    pub(super) fn take_foreign(&mut self, subject: &str, of: &Subject) {
        while self.has(subject) {
            let last = self.messages.iter().rposition(|stored| stored.subject == subject);
            let Some(at) = last.filter(|at| !of.is_of(&self.messages[*at].body)) else { return };
            self.messages.remove(at);
            if !self.messages.iter().any(|stored| stored.subject == subject) {
                self.subjects.remove(subject);
            }
        }
    }

    /// Takes the next message of a stage: what is due again first, as the server does, then the log.
    pub(super) fn next(
        &mut self,
        stage: StageName,
        wants: impl Fn(&str) -> bool,
        now: Instant,
        ack_wait: Duration,
        max_deliver: u32,
    ) -> Next {
        let cursor = self.stages.entry(stage).or_default();
        let due = now + ack_wait;
        while let Some((sequence, pending)) = cursor.pending.first_due(now) {
            if pending.delivered >= max_deliver {
                let given_up = Pending { delivered: pending.delivered, due: now, returned: true };
                cursor.pending.finish(sequence);
                cursor.undeliverable.0.insert(sequence, given_up);
                continue;
            }
            pending.delivered += 1;
            pending.due = due;
            pending.returned = false;
            let delivered = pending.delivered;
            if let Some(message) = at(&self.messages, sequence) {
                return Next::Message(message.clone(), delivered);
            }
        }
        let new = self.messages.partition_point(|message| message.sequence <= cursor.looked_at);
        for message in &self.messages[new..] {
            cursor.looked_at = message.sequence;
            if wants(&message.subject) {
                let pending = Pending { delivered: 1, due, returned: false };
                cursor.pending.0.insert(message.sequence, pending);
                return Next::Message(message.clone(), 1);
            }
        }
        cursor.pending.soonest()
    }

    /// Up to where a stage's deliveries are settled.
    pub(super) fn settled(&self, stage: StageName) -> u64 {
        let Some(cursor) = self.stages.get(&stage) else { return 0 };
        cursor.pending.0.first_key_value().map_or(cursor.looked_at, |(first, _)| first - 1)
    }

    /// Takes a message out of the log.
    pub(super) fn take(&mut self, subject: &str, sequence: u64) -> Option<Stored> {
        let at = self.messages.binary_search_by_key(&sequence, |message| message.sequence).ok()?;
        (self.messages[at].subject == subject).then(|| self.messages.remove(at))
    }

    /// Forgets what came behind this sequence.
    pub(super) fn roll_back(&mut self, to: u64) {
        self.messages.retain(|message| message.sequence <= to);
        self.last = to;
        self.subjects = self.messages.iter().map(|message| message.subject.clone()).collect();
        for cursor in self.stages.values_mut() {
            cursor.looked_at = cursor.looked_at.min(to);
            cursor.pending.0.retain(|sequence, _| *sequence <= to);
            cursor.undeliverable.0.retain(|sequence, _| *sequence <= to);
        }
    }

    /// Makes a stage's consumer begin again behind this sequence, as if it had delivered nothing of that yet.
    pub(super) fn rewind(&mut self, stage: StageName, to: u64) {
        self.stages.insert(stage, Cursor { looked_at: to, ..Cursor::default() });
    }

    /// Removes what lies below a sequence, and what the stages knew of it; how many messages.
    pub(super) fn purge(&mut self, before: u64) -> u64 {
        let gone = self.messages.partition_point(|message| message.sequence < before);
        for message in self.messages.drain(..gone) {
            // Of a subject that was published on twice the later one may stay.
            self.subjects.remove(&message.subject);
        }
        self.subjects.extend(self.messages.iter().map(|message| message.subject.clone()));
        for cursor in self.stages.values_mut() {
            cursor.looked_at = cursor.looked_at.max(before.saturating_sub(1));
            cursor.pending.0.retain(|sequence, _| *sequence >= before);
            cursor.undeliverable.0.retain(|sequence, _| *sequence >= before);
        }
        gone as u64
    }

    /// Removes these messages, and what the stages knew of them; how many there were.
    pub(super) fn remove(&mut self, sequences: &[u64]) -> u64 {
        let before = self.messages.len();
        self.messages.retain(|message| !sequences.contains(&message.sequence));
        self.subjects = self.messages.iter().map(|message| message.subject.clone()).collect();
        for cursor in self.stages.values_mut() {
            cursor.pending.0.retain(|sequence, _| !sequences.contains(sequence));
            cursor.undeliverable.0.retain(|sequence, _| !sequences.contains(sequence));
        }
        (before - self.messages.len()) as u64
    }

    /// The first message that a stage wants and has not settled, or that waits to be dead-lettered.
    pub(super) fn needed(&self, stage: StageName, wants: impl Fn(&str) -> bool) -> Option<u64> {
        let nothing = Cursor::default();
        let cursor = self.stages.get(&stage).unwrap_or(&nothing);
        let new = self.messages.partition_point(|message| message.sequence <= cursor.looked_at);
        let next = self.messages[new..].iter().find(|message| wants(&message.subject));
        let out = [&cursor.pending, &cursor.undeliverable]
            .map(|set| set.0.first_key_value().map(|(first, _)| *first));
        out.into_iter().flatten().chain(next.map(|message| message.sequence)).min()
    }

    /// Sequence of the last message, stored or removed.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What a stage has been given and has not answered for, in order.
    pub(super) fn unanswered(&self, stage: StageName) -> Vec<Stored> {
        let pending = self.stages.get(&stage).into_iter().flat_map(|cursor| cursor.pending.0.keys());
        pending.filter_map(|sequence| at(&self.messages, *sequence).cloned()).collect()
    }

    /// Takes the next message that a stage's consumer has given up on, with the count of its deliveries.
    pub(super) fn next_undeliverable(&mut self, stage: StageName, now: Instant, ack_wait: Duration) -> Next {
        let cursor = self.stages.entry(stage).or_default();
        if let Some((sequence, pending)) = cursor.undeliverable.first_due(now) {
            pending.due = now + ack_wait;
            pending.returned = false;
            let delivered = pending.delivered;
            if let Some(message) = at(&self.messages, sequence) {
                return Next::Message(message.clone(), delivered);
            }
        }
        cursor.undeliverable.soonest()
    }

    /// What of a stage is out: deliveries, or what was given up on.
    pub(super) fn pending(&mut self, stage: StageName, undeliverable: bool) -> &mut PendingSet {
        let cursor = self.stages.entry(stage).or_default();
        if undeliverable { &mut cursor.undeliverable } else { &mut cursor.pending }
    }

    /// How many messages the stage's consumer has given up on that are not dead-lettered yet.
    pub(super) fn undeliverable(&self, stage: StageName) -> usize {
        self.stages.get(&stage).map_or(0, |cursor| cursor.undeliverable.0.len())
    }

    pub(super) fn in_hand(&self, stage: StageName) -> usize {
        let pending = self.stages.get(&stage).map(|cursor| cursor.pending.0.values());
        pending.map_or(0, |all| all.filter(|pending| !pending.returned).count())
    }
}

fn at(messages: &[Stored], sequence: u64) -> Option<&Stored> {
    messages.get(messages.binary_search_by_key(&sequence, |message| message.sequence).ok()?)
}
