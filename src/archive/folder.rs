//! Archives in a folder.

use std::{
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
use throughline_schemas::{Timestamp, recording::Header};

use super::{
    failed, file_name,
    part::{self, Making, blocking},
    range_of,
    verify::verify,
};
use crate::bus::nats::NatsBus;

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
            Err(error) => return Err(failed(&name, "the folder cannot be read", error)),
        }
        let making = Making {
            bus: &self.bus,
            clock: self.clock.as_ref(),
            header: &self.header,
            name: &name,
            range: (first, before),
        };
        let (file, messages) = making.write(&self.place).await?;
        let target = path.clone();
        let named = blocking(move || give_name(file, messages, &target, (first, before))).await;
        let messages = named.map_err(|error| failed(&name, "it cannot be finished", error))?;
        Ok(Archived { name: path.display().to_string(), messages })
    }

    async fn forget(&self, written_before: Timestamp) -> Result<u64, ArchiveError> {
        let (folder, namespace) = (self.place.clone(), self.header.namespace.clone());
        let abandoned = Timestamp::from_unix_ms(
            self.clock.now().unix_ms().saturating_sub(i64::try_from(ABANDONED_MS).unwrap_or(i64::MAX)),
        );
        let removed = blocking(move || remove_old(&folder, &namespace, written_before, abandoned)).await;
        removed.map_err(|error| failed("", "old archives cannot be removed", error))
    }
}

/// Gives a file its name, unless a whole archive has it. How many messages are in the one that has the name then.
///
/// Two processes may archive the same messages at the same time. The one that is first removes them from the log, while
/// the other one still reads: what that one writes is whole in itself and lacks them, and must not take the name.
fn give_name(
    file: NamedTempFile,
    messages: u64,
    target: &Path,
    (first, before): (u64, u64),
) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    if let Err(taken) = file.persist_noclobber(target) {
        if taken.error.kind() != io::ErrorKind::AlreadyExists {
            return Err(taken.into());
        }
        if let Ok(messages) = verify(target, first, before) {
            return Ok(messages);
        }
        taken.file.persist(target)?;
    }
    if let Some(folder) = target.parent() {
        // The name is safe, too.
        File::open(folder)?.sync_all()?;
    }
    Ok(messages)
}

/// Removes archives of a namespace that were written before an instant, and what processes that died left behind.
fn remove_old(folder: &Path, namespace: &str, before: Timestamp, abandoned: Timestamp) -> io::Result<u64> {
    let part = part::prefix(namespace);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{part::Part, tests::header},
        *,
    };
    use crate::bus::nats::StoredEvent;

    fn part(folder: &Path, sequences: std::ops::Range<u64>) -> (NamedTempFile, u64) {
        let message = |sequence| StoredEvent {
            sequence,
            subject: "shop.v1.user_input_received".to_owned(),
            stored_at: Timestamp::from_unix_ms(0),
            headers: Vec::new(),
            body: bytes::Bytes::from_static(b"{}"),
        };
        let part = Part::create(folder, &header()).unwrap();
        part.write(sequences.map(message).collect()).unwrap().finish(1, 9).unwrap()
    }

    #[test]
    fn the_slower_of_two_which_lacks_what_was_removed_meanwhile_does_not_take_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join(file_name("shop", 1, 9));
        let name = |(file, messages)| give_name(file, messages, &target, (1, 9)).unwrap();
        let (slow, quick) = (part(folder.path(), 5..9), part(folder.path(), 1..9));
        assert_eq!((slow.1, quick.1), (4, 8));
        assert_eq!(name(quick), 8);
        assert_eq!(name(slow), 8);
        assert_eq!(verify(&target, 1, 9).unwrap(), 8);
        // What is not whole is worth nothing.
        std::fs::write(&target, "cut").unwrap();
        assert_eq!(name(part(folder.path(), 1..9)), 8);
        assert_eq!(verify(&target, 1, 9).unwrap(), 8);
    }
}
