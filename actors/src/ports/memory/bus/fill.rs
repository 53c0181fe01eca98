//! The fake's log, as retention sees it.

use std::time::Duration;

use async_trait::async_trait;
use throughline_schemas::{StageName, Subject, Timestamp};

use super::{MemoryBus, State, Stored, inbox::wants, unavailable};
use crate::{
    policy::thinning::Thinning,
    ports::{
        bus::BusError,
        log::{BODIES, Fill, Log, Purge, Released, Room},
    },
};

impl State {
    /// Whether a message of this size does not fit any more.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.max_bytes.is_some_and(|max| size(self.log.all()) + bytes as u64 > max)
    }
}

/// The fake keeps no body apart. Where the store of bodies has a limit, messages from this size on count as if it did.
const LARGE_BYTES: usize = 64 * 1024;

/// A store of large bodies: the sequence of the message that names each, and its size.
#[derive(Debug)]
pub(super) struct LargeBodies {
    max_bytes: u64,
    kept: Vec<(u64, u64)>,
}

impl LargeBodies {
    fn bytes(&self) -> u64 {
        self.kept.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl State {
    /// Whether a body of this size does not fit beside the others any more.
    pub(super) fn lacks_room_for_body(&self, bytes: usize) -> bool {
        self.bodies
            .as_ref()
            .is_some_and(|bodies| bytes >= LARGE_BYTES && bodies.bytes() + bytes as u64 > bodies.max_bytes)
    }

    /// What the message that was stored last has for a body.
    pub(super) fn keep_body(&mut self, bytes: usize) {
        let sequence = self.log.last();
        if let Some(bodies) = self.bodies.as_mut().filter(|_| bytes >= LARGE_BYTES) {
            bodies.kept.push((sequence, bytes as u64));
        }
    }
}

/// Bytes of these messages; subjects and headers are not counted.
fn size(messages: &[Stored]) -> u64 {
    messages.iter().map(|message| message.body.len() as u64).sum()
}

impl MemoryBus {
    /// Limits what the log may take, in bytes; then publishing fails, as the real one's does.
    pub fn limit(&self, max_bytes: u64) {
        self.shared.lock().max_bytes = Some(max_bytes);
    }

    /// Limits what large bodies may take, in bytes.
    pub fn limit_bodies(&self, max_bytes: u64) {
        self.shared.lock().bodies = Some(LargeBodies { max_bytes, kept: Vec::new() });
    }

    /// Whether an input of this size would be refused.
    pub fn refuses(&self, bytes: usize) -> bool {
        self.shared.lock().is_full(bytes)
    }

    /// What was removed last, and how often anything was asked to be.
    pub fn purged(&self) -> (Option<Purge>, usize) {
        let state = self.shared.lock();
        (state.purged.clone(), state.purges)
    }
}

#[async_trait]
impl Log for MemoryBus {
    async fn last(&self) -> Result<u64, BusError> {
        let state = self.shared.lock();
        if state.offline { Err(unavailable("looking at the log")) } else { Ok(state.log.last()) }
    }

    async fn fill(&self) -> Result<Fill, BusError> {
        let now = self.shared.now();
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("looking at the log"));
        }
        let needed = StageName::ALL.into_iter().filter_map(|stage| {
            let first = state.log.needed(stage, |subject| wants(&self.shared.ns, stage, subject))?;
            Some((first, stage))
        });
        let (messages, last) = (state.log.all(), state.log.last());
        Ok(Fill {
            now,
            first: messages.first().map_or(last + 1, |message| message.sequence),
            last,
            messages: messages.len() as u64,
            bytes: size(messages),
            max_bytes: state.max_bytes,
            needed: needed.min_by_key(|(sequence, _)| *sequence),
            others: state
                .bodies
                .iter()
                .map(|bodies| Room {
                    holds: BODIES,
                    bytes: bodies.bytes(),
                    max_bytes: Some(bodies.max_bytes),
                })
                .collect(),
        })
    }

    async fn age_at(&self, sequence: u64) -> Result<Option<Duration>, BusError> {
        let now = self.shared.now();
        let state = self.shared.lock();
        let found = state.log.all().iter().find(|message| message.sequence >= sequence);
        Ok(found.map(|message| Duration::from_millis(now.ms_since(message.stored_at))))
    }

    async fn first_within(&self, age: Duration) -> Result<u64, BusError> {
        let now = self.shared.now();
        let state = self.shared.lock();
        let is_young = |message: &&Stored| u128::from(now.ms_since(message.stored_at)) <= age.as_millis();
        let first = state.log.all().iter().find(is_young);
        Ok(first.map_or(state.log.last() + 1, |message| message.sequence))
    }

    async fn purge(&self, purge: &Purge) -> Result<u64, BusError> {
        let removed = {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("removing old events"));
            }
            state.purges += 1;
            state.purged = Some(purge.clone());
            state.log.purge(purge.before)
        };
        self.shared.changed();
        Ok(removed)
    }

    async fn finished_from(
        &self,
        sequence: u64,
        bytes: u64,
        ended_before: Timestamp,
    ) -> Result<Vec<u64>, BusError> {
        let state = self.shared.lock();
        if state.offline {
            return Err(unavailable("looking for what is finished"));
        }
        let mut thinning = Thinning::new(ended_before);
        for message in state.log.all().iter().filter(|message| message.sequence >= sequence) {
            if let Some(subject) = Subject::parse(&self.shared.ns, &message.subject)
                && subject.is_of(&message.body)
            {
                let bytes = message.body.len() as u64;
                thinning.see(&subject, message.sequence, bytes, message.stored_at);
            }
            if thinning.bytes() >= bytes {
                break;
            }
        }
        Ok(thinning.finished())
    }

    async fn remove(&self, sequences: &[u64]) -> Result<u64, BusError> {
        let removed = {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("removing what is finished"));
            }
            state.log.remove(sequences)
        };
        self.shared.changed();
        Ok(removed)
    }

    async fn release_bodies(&self, bytes: u64) -> Result<Released, BusError> {
        let mut state = self.shared.lock();
        if state.offline {
            return Err(unavailable("removing large bodies"));
        }
        let first = state.log.all().first().map_or(u64::MAX, |message| message.sequence);
        let mut released = Released::default();
        let Some(bodies) = &mut state.bodies else { return Ok(released) };
        let mut seen = 0;
        bodies.kept.retain(|(sequence, size)| {
            if seen >= bytes {
                return true;
            }
            seen += size;
            if *sequence >= first {
                released.needs_log_from = Some(sequence + 1);
                return true;
            }
            released.bodies += 1;
            released.bytes += size;
            false
        });
        Ok(released)
    }
}
