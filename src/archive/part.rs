//! An archive in the making: a recording in a file that has no name of its own yet.

use std::{collections::HashSet, path::Path};

use tempfile::NamedTempFile;
use throughline_actors::ports::{archive::ArchiveError, clock::Clock};
use throughline_schemas::{WorkflowId, recording::Header};

use super::{failed, verify::verify};
use crate::{
    bus::nats::{NatsBus, StoredEvent},
    replay::{
        history::workflow_of,
        recording::{RecordingError, Writer},
    },
};

/// What a file is called while it is written.
const PART: &str = ".part-";

/// How the files of a namespace begin while they are written.
pub(super) fn prefix(namespace: &str) -> String {
    format!("{PART}{namespace}-")
}

/// What archives are made of.
pub(super) struct Making<'a> {
    pub(super) bus: &'a NatsBus,
    pub(super) clock: &'a dyn Clock,
    pub(super) header: &'a Header,
    /// The name of the archive.
    pub(super) name: &'a str,
    /// The first sequence in it, and the one behind the last.
    pub(super) range: (u64, u64),
}

impl Making<'_> {
    /// Reads the messages from the log into a file in `folder`, makes that safe and reads it back. How many messages are
    /// in it.
    pub(super) async fn write(&self, folder: &Path) -> Result<(NamedTempFile, u64), ArchiveError> {
        let (name, (first, before)) = (self.name, self.range);
        let header = Header {
            created_at: self.clock.now(),
            selection: format!(
                "messages {first} to {}, removed from the log by retention",
                before.saturating_sub(1)
            ),
            ..self.header.clone()
        };
        let folder = folder.to_owned();
        let mut part = blocking(move || Part::create(&folder, &header)).await.map_err(|error| {
            failed(name, "the file cannot be made; see to the folder in retention.archive", error)
        })?;
        let (mut next, mut messages) = (first, 0);
        while next < before {
            let read = self.bus.stored_from(next, before).await;
            let batch = read.map_err(|error| failed(name, "the log cannot be read", error))?;
            let Some(last) = batch.last() else { break };
            next = last.sequence + 1;
            messages += batch.len() as u64;
            let written = blocking(move || part.write(batch)).await;
            part = written
                .map_err(|error| failed(name, "it cannot be written; make room on its disk", error))?;
        }
        let finished = blocking(move || part.finish(first, before)).await;
        let (file, found) = finished.map_err(|error| failed(name, "it cannot be finished", error))?;
        if found != messages {
            let reason = format!("{messages} messages were written and {found} were read back");
            return Err(ArchiveError::NotVerified { name: name.to_owned(), reason });
        }
        Ok((file, found))
    }
}

/// The open file.
pub(super) struct Part {
    writer: Writer<NamedTempFile>,
    workflows: HashSet<WorkflowId>,
}

impl Part {
    pub(super) fn create(folder: &Path, header: &Header) -> Result<Self, RecordingError> {
        std::fs::create_dir_all(folder)?;
        let file = tempfile::Builder::new().prefix(&prefix(&header.namespace)).tempfile_in(folder)?;
        Ok(Self { writer: Writer::new(file, header)?, workflows: HashSet::new() })
    }

    pub(super) fn write(mut self, messages: Vec<StoredEvent>) -> Result<Self, RecordingError> {
        for message in messages {
            self.workflows.extend(workflow_of(&message));
            self.writer.message(message)?;
        }
        Ok(self)
    }

    /// Makes it safe and reads it back.
    pub(super) fn finish(
        self,
        first: u64,
        before: u64,
    ) -> Result<(NamedTempFile, u64), Box<dyn std::error::Error + Send + Sync>> {
        let (file, _) = self.writer.finish_with(self.workflows.len() as u64)?;
        file.as_file().sync_all()?;
        let messages = verify(file.path(), first, before)?;
        Ok((file, messages))
    }
}

/// Files and compression do not belong on a thread that others wait for.
pub(super) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Box<dyn std::error::Error + Send + Sync>>
where
    T: Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(error.into()),
    }
}
