//! Finding inputs that were published on the subject without tokens.

use std::collections::HashSet;

use serde::Deserialize;
use throughline_schemas::EventType;

use super::Selection;
use crate::{
    bus::nats::{NatsBus, StoredEvent},
    cli::{Failure, bus_error},
};

/// Inputs that were read and whose validation was not, at most; beyond that all are forgotten, and one may be shown
/// twice.
const MAX_SEEN: usize = 100_000;

/// Looks inputs up that a selection by workflow or session cannot see.
pub(super) struct BareInputs<'a> {
    bus: &'a NatsBus,
    wanted: bool,
    seen: HashSet<u64>,
}

impl<'a> BareInputs<'a> {
    pub(super) fn new(bus: &'a NatsBus, selection: &Selection) -> Self {
        Self { bus, wanted: selection.misses_bare_inputs(), seen: HashSet::new() }
    }

    /// The input that led to `event`, if it was not among what was read.
    pub(super) async fn missing(&mut self, event: &StoredEvent) -> Result<Option<StoredEvent>, Failure> {
        if !self.wanted {
            return Ok(None);
        }
        let kind = event.event_type();
        if kind == Some(EventType::UserInputReceived) {
            if self.seen.len() >= MAX_SEEN {
                self.seen.clear();
            }
            self.seen.insert(event.sequence);
            return Ok(None);
        }
        if kind != Some(EventType::InputValidated) {
            return Ok(None);
        }
        match input_sequence(&event.body) {
            Some(sequence) if !self.seen.remove(&sequence) => fetch(self.bus, sequence).await,
            _ => Ok(None),
        }
    }
}

/// The input of an `input_validated`, if it is still stored; `None` for any other event.
pub(super) async fn fetch_input(bus: &NatsBus, event: &StoredEvent) -> Result<Option<StoredEvent>, Failure> {
    if event.event_type() != Some(EventType::InputValidated) {
        return Ok(None);
    }
    match input_sequence(&event.body) {
        Some(sequence) => fetch(bus, sequence).await,
        None => Ok(None),
    }
}

/// Where the input of an `input_validated` is.
fn input_sequence(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Envelope {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        request: Request,
    }
    #[derive(Deserialize)]
    struct Request {
        input_sequence: u64,
    }
    Some(serde_json::from_slice::<Envelope>(body).ok()?.data.request.input_sequence)
}

/// The message of this sequence, if it is still stored.
async fn fetch(bus: &NatsBus, sequence: u64) -> Result<Option<StoredEvent>, Failure> {
    bus.stored_at(sequence).await.map_err(|error| bus_error::failure(&error))
}
