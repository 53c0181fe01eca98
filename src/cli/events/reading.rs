//! Where events come from: looked up, or read through the log.

use std::collections::VecDeque;

use super::select::Selection;
use crate::{
    bus::nats::{EventReader, NatsBus, StoredEvent},
    cli::{Failure, bus_error},
};

/// Events in the order of the log.
pub(super) enum Reading {
    /// Those of one workflow, looked up.
    Found(VecDeque<StoredEvent>),
    /// All that match, as they are read.
    Log(EventReader),
}

impl Reading {
    pub(super) async fn open(bus: &NatsBus, selection: &mut Selection) -> Result<Self, Failure> {
        let failed = |error| bus_error::failure(&error);
        if let Some(filter) = selection.lookup() {
            match bus.few(filter).await.map_err(failed)? {
                Some(found) if !selection.follows() => return Ok(Self::Found(selection.keep(found))),
                // Before its first event the server need not search.
                Some(found) => found.iter().take(1).for_each(|first| selection.begin_at(first.stored_at)),
                None => {}
            }
        }
        bus.read(selection.request()).await.map(Self::Log).map_err(failed)
    }

    /// The next one; `None` after the last. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<StoredEvent>, Failure> {
        match self {
            Self::Found(events) => Ok(events.pop_front()),
            Self::Log(reader) => reader.next().await.map_err(|error| bus_error::failure(&error)),
        }
    }
}

impl Selection {
    /// Those that reading through the log would give as well.
    fn keep(&self, found: Vec<StoredEvent>) -> VecDeque<StoredEvent> {
        found.into_iter().filter(|event| event.event_type().is_some_and(|kind| self.reads(kind))).collect()
    }
}
