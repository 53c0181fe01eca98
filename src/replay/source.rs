//! Reading past workflows, from the log or from a recording, one after another.

use std::collections::VecDeque;

use throughline_actors::ports::bus::BusError;
use throughline_schemas::EventType;

use super::{
    history::{Histories, History, event_type},
    selection::Selection,
};
use crate::bus::nats::{EventReader, NatsBus, StoredEvent};

/// Past workflows in the order in which they ended. Reading disturbs no stage.
pub struct Source {
    bus: NatsBus,
    reader: EventReader,
    selection: Selection,
    grouping: Option<Histories>,
    ready: VecDeque<History>,
    given: u64,
}

impl Source {
    /// Begins to read the log of a namespace.
    pub async fn open(bus: NatsBus, selection: Selection) -> Result<Self, BusError> {
        let reader = bus.read(selection.request(bus.namespace())).await?;
        let grouping = Some(Histories::default());
        Ok(Self { bus, reader, selection, grouping, ready: VecDeque::new(), given: 0 })
    }

    /// The next workflow; `None` after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<History>, BusError> {
        loop {
            if self.selection.limit.is_some_and(|limit| self.given >= limit) {
                return Ok(None);
            }
            if let Some(history) = self.ready.pop_front() {
                if !history.has_begun() || !self.selection.wants(&history) {
                    continue;
                }
                self.given += 1;
                return Ok(Some(history));
            }
            let Some(grouping) = &mut self.grouping else { return Ok(None) };
            let event = self.reader.next().await?;
            match event.filter(|event| !self.selection.is_over(event.stored_at)) {
                Some(event) => {
                    let input = missing_input(&self.bus, &self.selection, &event).await?;
                    self.ready.extend(input.into_iter().chain([event]).flat_map(|event| grouping.add(event)));
                }
                None => self.ready.extend(self.grouping.take().map(Histories::finish).unwrap_or_default()),
            }
        }
    }

    /// The connection, to be closed when all is read.
    pub fn into_bus(self) -> NatsBus {
        self.bus
    }
}

/// The input that led to an `input_validated`, where inputs are not among what is read.
async fn missing_input(
    bus: &NatsBus,
    selection: &Selection,
    event: &StoredEvent,
) -> Result<Option<StoredEvent>, BusError> {
    if !selection.misses_bare_inputs() || event_type(event) != Some(EventType::InputValidated) {
        return Ok(None);
    }
    let Ok(validated) = throughline_schemas::decode(&event.body) else { return Ok(None) };
    let Some(request) = validated.data.request() else { return Ok(None) };
    bus.stored_at(request.input_sequence).await
}
