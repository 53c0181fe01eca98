//! Archives in a folder.

use std::{
    collections::HashSet,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use tempfile::NamedTempFile;
use throughline_actors::ports::{
    archive::{Archive, ArchiveError, Archived},
    clock::Clock,
};
use throughline_schemas::{Timestamp, WorkflowId, recording::Header};

use super::{file_name, range_of, verify::verify};
use crate::{
    bus::nats::{NatsBus, StoredEvent},
    replay::{
        history::workflow_of,
        recording::{RecordingError, Writer},
    },
};

/// What a file is called while it is written.
const PART: &str = ".part-";
/// Files that were being written this long ago were left by a process that died.
const ABANDONED_MS: u64 = 24 * 3_600_000;

/// Archives as files in a folder.
pub struct Folder {
    bus: Arc<NatsBus>,
    clock: Arc<dyn Clock>,
    place: PathBuf,
    header: Header,
}

impl Folder {
    /// `header` is that of every archive, but for its selection and its time.
    pub fn new(bus: Arc<NatsBus>, clock: Arc<dyn Clock>, place: PathBuf, header: Header) -> Self {
        Self { bus, clock, place, header }
    }

    fn failed(
        name: &str,
        what: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ArchiveError {
        ArchiveError::Failed { name: name.to_owned(), reason: what.to_owned(), source: Some(error.into()) }
    }

    async fn write(&self, name: &str, path: &Path, first: u64, before: u64) -> Result<u64, ArchiveError> {
        let header = Header {
            created_at: self.clock.now(),
            selection: format!(
                "messages {first} to {}, removed from the log by retention",
                before.saturating_sub(1)
            ),
            ..self.header.clone()
        };
        let folder = self.place.clone();
        let mut part = blocking(move || Part::create(&folder, &header)).await.map_err(|error| {
            Self::failed(name, "the file cannot be made; see to the folder in retention.archive", error)
        })?;
        let mut next = first;
        let mut messages = 0;
        while let Some(batch) = self.next(name, next, before).await? {
            next = batch.next;
            messages += batch.messages.len() as u64;
            let written = blocking(move || part.write(batch.messages)).await;
            part = written
                .map_err(|error| Self::failed(name, "it cannot be written; make room on its disk", error))?;
        }
        let target = path.to_owned();
        let found = blocking(move || part.finish(&target, first, before)).await;
        let found = found.map_err(|error| Self::failed(name, "it cannot be finished", error))?;
        match found {
            Finished::Ours(found) if found != messages => {
                let reason = format!("{messages} messages were written and {found} were read back");
                Err(ArchiveError::NotVerified { name: name.to_owned(), reason })
            }
            Finished::Ours(found) | Finished::Anothers(found) => Ok(found),
        }
    }

    async fn next(&self, name: &str, next: u64, before: u64) -> Result<Option<Batch>, ArchiveError> {
        if next >= before {
            return Ok(None);
        }
        let read = self.bus.stored_from(next, before).await;
        let messages = read.map_err(|error| Self::failed(name, "the log cannot be read", error))?;
        Ok(messages.last().map(|last| last.sequence + 1).map(|next| Batch { messages, next }))
    }
}

struct Batch {
    messages: Vec<StoredEvent>,
    next: u64,
}

#[async_trait]
impl Archive for Folder {
    async fn keep(&self, first: u64, before: u64) -> Result<Archived, ArchiveError> {
        let name = file_name(&self.header.namespace, first, before);
        let path = self.place.join(&name);
        let there = path.clone();
        let found =
            blocking(move || Ok::<_, io::Error>(there.exists().then(|| verify(&there, first, before)))).await;
        match found {
            // Written by a process that died before it removed what is in it.
            Ok(Some(Ok(messages))) => return Ok(Archived { name: path.display().to_string(), messages }),
            Ok(Some(Err(why))) => {
                tracing::warn!(archive = name, %why, "an archive is not whole, though it has its name; it is written again");
            }
            Ok(None) => {}
            Err(error) => return Err(Self::failed(&name, "the folder cannot be read", error)),
        }
        let messages = self.write(&name, &path, first, before).await?;
        Ok(Archived { name: path.display().to_string(), messages })
    }

    async fn forget(&self, written_before: Timestamp) -> Result<u64, ArchiveError> {
        let (folder, namespace) = (self.place.clone(), self.header.namespace.clone());
        let abandoned = Timestamp::from_unix_ms(
            self.clock.now().unix_ms().saturating_sub(i64::try_from(ABANDONED_MS).unwrap_or(i64::MAX)),
        );
        let removed = blocking(move || remove_old(&folder, &namespace, written_before, abandoned)).await;
        removed.map_err(|error| Self::failed("", "old archives cannot be removed", error))
    }
}

/// A file in the making.
struct Part {
    writer: Writer<NamedTempFile>,
    workflows: HashSet<WorkflowId>,
}

impl Part {
    fn create(folder: &Path, header: &Header) -> Result<Self, RecordingError> {
        std::fs::create_dir_all(folder)?;
        let prefix = format!("{PART}{}-", header.namespace);
        let file = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
        Ok(Self { writer: Writer::new(file, header)?, workflows: HashSet::new() })
    }

    fn write(mut self, messages: Vec<StoredEvent>) -> Result<Self, RecordingError> {
        for message in messages {
            self.workflows.extend(workflow_of(&message));
            self.writer.message(message)?;
        }
        Ok(self)
    }

    /// Makes it safe, reads it back, and gives it its name, unless a whole archive has it.
    ///
    /// Two processes may archive the same messages at the same time. The one that is first removes them from the log, while
    /// the other one still reads: what that one writes is whole in itself and lacks them, and must not take the name.
    fn finish(
        self,
        target: &Path,
        first: u64,
        before: u64,
    ) -> Result<Finished, Box<dyn std::error::Error + Send + Sync>> {
        let (file, _) = self.writer.finish_with(self.workflows.len() as u64)?;
        file.as_file().sync_all()?;
        let messages = verify(file.path(), first, before)?;
        if let Err(taken) = file.persist_noclobber(target) {
            if taken.error.kind() != io::ErrorKind::AlreadyExists {
                return Err(taken.into());
            }
            if let Ok(messages) = verify(target, first, before) {
                return Ok(Finished::Anothers(messages));
            }
            taken.file.persist(target)?;
        }
        if let Some(folder) = target.parent() {
            // The name is safe, too.
            File::open(folder)?.sync_all()?;
        }
        Ok(Finished::Ours(messages))
    }
}

/// Whose archive has the name now, and how many messages are in it.
#[derive(Debug, PartialEq, Eq)]
enum Finished {
    Ours(u64),
    /// That of a process that archived the same messages and was quicker.
    Anothers(u64),
}

/// Removes archives of a namespace that were written before an instant, and what processes that died left behind.
fn remove_old(folder: &Path, namespace: &str, before: Timestamp, abandoned: Timestamp) -> io::Result<u64> {
    let part = format!("{PART}{namespace}-");
    let mut removed = 0;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let limit = match (range_of(name, namespace), name.starts_with(&part)) {
            (Some(_), _) => before,
            (None, true) => abandoned,
            (None, false) => continue,
        };
        let written: time::OffsetDateTime = entry.metadata()?.modified()?.into();
        if Timestamp::from(written) < limit {
            std::fs::remove_file(entry.path())?;
            removed += u64::from(limit == before);
        }
    }
    Ok(removed)
}

/// Files and compression do not belong on a thread that others wait for.
async fn blocking<T, E>(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::recording::{FORMAT, Prompt, VERSION};

    use super::*;

    fn header() -> Header {
        Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            created_at: Timestamp::from_unix_ms(0),
            namespace: "shop".to_owned(),
            selection: String::new(),
            configuration_id: String::new(),
            configuration: serde_json::Value::Null,
            prompt: Prompt {
                id: String::new(),
                system: String::new(),
                data: String::new(),
                hash: String::new(),
            },
            redacted: Vec::new(),
        }
    }

    fn part(folder: &Path, sequences: std::ops::Range<u64>) -> Part {
        let message = |sequence| StoredEvent {
            sequence,
            subject: "shop.v1.user_input_received".to_owned(),
            stored_at: Timestamp::from_unix_ms(0),
            headers: Vec::new(),
            body: bytes::Bytes::from_static(b"{}"),
        };
        Part::create(folder, &header()).unwrap().write(sequences.map(message).collect()).unwrap()
    }

    #[test]
    fn whoever_is_slower_and_misses_what_was_removed_meanwhile_does_not_take_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join(file_name("shop", 1, 9));
        let (slow, quick) = (part(folder.path(), 5..9), part(folder.path(), 1..9));
        assert_eq!(quick.finish(&target, 1, 9).unwrap(), Finished::Ours(8));
        assert_eq!(slow.finish(&target, 1, 9).unwrap(), Finished::Anothers(8));
        assert_eq!(verify(&target, 1, 9).unwrap(), 8);
        // What is not whole is worth nothing.
        std::fs::write(&target, "cut").unwrap();
        assert_eq!(part(folder.path(), 1..9).finish(&target, 1, 9).unwrap(), Finished::Ours(8));
        assert_eq!(verify(&target, 1, 9).unwrap(), 8);
    }
}
