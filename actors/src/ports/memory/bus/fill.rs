//! The fake's log, as whoever keeps room in it sees it.

use std::time::Duration;

use async_trait::async_trait;
use throughline_schemas::StageName;

use super::{MemoryBus, State, Stored, inbox::wants, unavailable};
use crate::ports::{
    bus::BusError,
    log::{Fill, Log, Purge},
};

impl State {
    /// Whether a message of this size does not fit any more.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.max_bytes.is_some_and(|max| size(self.log.all()) + bytes as u64 > max)
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
            others: Vec::new(),
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
}
