//! Reading recorded workflows, from the log or from a recording, one after another.

use std::{collections::VecDeque, fs::File, path::Path};

use throughline_actors::ports::bus::BusError;
use throughline_schemas::{EventType, recording::Header};

use super::{
    history::{Histories, History, workflow_of},
    recording::{Reader, RecordingError},
    selection::Selection,
};
use crate::bus::nats::{EventReader, NatsBus, StoredEvent};

/// Past workflows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// From the log.
    #[error(transparent)]
    Log(#[from] BusError),
    /// From a file.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

/// Where messages come from.
enum From {
    Log { bus: NatsBus, reader: Box<EventReader> },
    File(Box<Reader<File>>),
}

/// Past workflows in the order in which they ended. Reading disturbs no stage.
pub struct Source {
    from: From,
    selection: Selection,
    grouping: Option<Histories>,
    ready: VecDeque<History>,
    /// Read from the log, while its input is looked for: kept so that a cancelled `next` loses nothing.
    pending: Option<StoredEvent>,
    given: u64,
}

impl Source {
    /// Begins to read the log of a namespace.
    pub async fn log(bus: NatsBus, selection: Selection) -> Result<Self, SourceError> {
        let reader = Box::new(bus.read(selection.request(bus.namespace())).await?);
        Ok(Self::new(From::Log { bus, reader }, selection))
    }

    /// Begins to read a recording.
    pub fn file(path: &Path, selection: Selection) -> Result<Self, SourceError> {
        Ok(Self::new(From::File(Box::new(Reader::open(path)?)), selection))
    }

    fn new(from: From, selection: Selection) -> Self {
        let grouping = Some(Histories::default());
        Self { from, selection, grouping, ready: VecDeque::new(), pending: None, given: 0 }
    }

    /// The header, of a recording.
    pub fn header(&self) -> Option<&Header> {
        match &self.from {
            From::Log { .. } => None,
            From::File(reader) => Some(reader.header()),
        }
    }

    /// The next workflow; `None` after the last one. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<History>, SourceError> {
        loop {
            if self.selection.limit.is_some_and(|limit| self.given >= limit) {
                return Ok(None);
            }
            if let Some(history) = self.ready.pop_front() {
                if !history.has_begun() || !self.selection.wants(&history) {
                    continue;
                }
                if self.header().is_some() && !self.selection.is_of_session(&history) {
                    continue;
                }
                self.given += 1;
                return Ok(Some(history));
            }
            let Some(grouping) = &mut self.grouping else { return Ok(None) };
            let (input, event) = match &mut self.from {
                From::Log { bus, reader } => {
                    if self.pending.is_none() {
                        self.pending = reader.next().await?;
                    }
                    let input = match &self.pending {
                        Some(event) if !self.selection.is_over(event.stored_at) => {
                            missing_input(bus, &self.selection, event).await?
                        }
                        Some(_) | None => None,
                    };
                    let event = self.pending.take();
                    (input, event.filter(|event| !self.selection.is_over(event.stored_at)))
                }
                From::File(reader) => match reader.next_message()? {
                    Some(event) if !self.selection.covers(&event) => continue,
                    event => (None, event),
                },
            };
            match event {
                Some(event) => {
                    self.ready.extend(input.into_iter().chain([event]).flat_map(|event| grouping.add(event)));
                }
                None => self.ready.extend(self.grouping.take().map(Histories::finish).unwrap_or_default()),
            }
        }
    }

    /// The connection, to be closed when all is read; a file has none.
    pub fn into_bus(self) -> Option<NatsBus> {
        match self.from {
            From::Log { bus, .. } => Some(bus),
            From::File(_) => None,
        }
    }
}

/// The input that led to an `input_validated`, where inputs are not among what is read.
async fn missing_input(
    bus: &NatsBus,
    selection: &Selection,
    event: &StoredEvent,
) -> Result<Option<StoredEvent>, BusError> {
    if !selection.misses_bare_inputs() || event.event_type() != Some(EventType::InputValidated) {
        return Ok(None);
    }
    let Ok(validated) = throughline_schemas::decode(&event.body) else { return Ok(None) };
    let Some(request) = validated.data.request() else { return Ok(None) };
    // Where messages were imported, another one may have the sequence.
    let found = bus.stored_at(request.input_sequence).await?;
    Ok(found.filter(|input| workflow_of(input).as_ref() == Some(&validated.meta.workflow_id)))
}
