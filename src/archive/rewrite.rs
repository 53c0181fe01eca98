//! Archives without what is to be erased.
//!
//! An archive is written again beside the old one, synced, read back, and given its name: at every moment one that is whole
//! is there. In a folder it keeps its time, by which retention removes it.

use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::NamedTempFile;
use throughline_schemas::{Timestamp, recording::Header};
use time::OffsetDateTime;

use super::{part, range_of, verify::verify};
use crate::{
    bus::nats::StoredEvent,
    personal::{Matcher, PersonalError},
    replay::{
        history::workflow_of,
        recording::{Reader, RecordingError, Writer},
    },
};

/// A file that was not written to for so long is abandoned.
const ABANDONED: Duration = Duration::from_mins(10);
/// What the selection in the header of such an archive ends with.
const WITHOUT: &str = ", without what was to be forgotten";

/// What was taken out of archives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Archives that were written again.
    pub archives: u64,
    /// Messages that are no longer in them.
    pub messages: u64,
}

/// Every archive of the namespace in a folder, in the order of the log.
pub(crate) fn archives(folder: &Path, namespace: &str) -> std::io::Result<Vec<(u64, u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if let Some((first, before)) = entry.file_name().to_str().and_then(|name| range_of(name, namespace)) {
            found.push((first, before, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Their messages in an archive.
pub(crate) fn theirs(
    file: &Path,
    matcher: &mut Matcher,
    mut each: impl FnMut(&StoredEvent) -> std::io::Result<()>,
) -> Result<u64, PersonalError> {
    let failed = |source| PersonalError::Archive { file: file.to_owned(), source };
    let mut reader = Reader::open(file).map_err(failed)?;
    let mut messages = 0;
    while let Some(message) = reader.next_message().map_err(failed)? {
        if matcher.owned(&message).is_some() {
            each(&message)?;
            messages += 1;
        }
    }
    Ok(messages)
}

/// Takes everything of theirs out of all archives of a folder; with `dry_run` says how much that is.
pub(crate) fn rewrite(
    folder: &Path,
    namespace: &str,
    matcher: &mut Matcher,
    dry_run: bool,
    now: Timestamp,
) -> Result<Rewritten, PersonalError> {
    let mut rewritten = Rewritten::default();
    if !dry_run {
        clear_parts(folder, namespace, now)?;
    }
    for (first, before, file) in archives(folder, namespace)? {
        let theirs = theirs(&file, matcher, |_| Ok(()))?;
        if theirs == 0 {
            continue;
        }
        if !dry_run {
            let failed =
                |error: std::io::Error| PersonalError::Archive { file: file.clone(), source: error.into() };
            let written = without(&file, folder, (first, before), matcher)?;
            let time = fs::metadata(&file).and_then(|old| old.modified()).map_err(failed)?;
            written.as_file().set_modified(time).map_err(failed)?;
            written.persist(&file).map_err(|error| failed(error.error))?;
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        rewritten.archives += 1;
        rewritten.messages += theirs;
    }
    Ok(rewritten)
}

/// Writes an archive again into a file in `folder`, and reads it back.
pub(super) fn without(
    file: &Path,
    folder: &Path,
    (first, before): (u64, u64),
    matcher: &mut Matcher,
) -> Result<NamedTempFile, PersonalError> {
    let failed = |source: RecordingError| PersonalError::Archive { file: file.to_owned(), source };
    let mut reader = Reader::open(file).map_err(failed)?;
    let header = reader.header().clone();
    // What an earlier rewriting added is said once.
    let selection = header.selection.strip_suffix(WITHOUT).unwrap_or(&header.selection);
    let selection = format!("{selection}{WITHOUT}");
    let part = tempfile::Builder::new().prefix(&part::prefix(&header.namespace)).tempfile_in(folder);
    let part = part.map_err(|error| failed(error.into()))?;
    let mut writer = Writer::new(part, &Header { selection, ..header }).map_err(failed)?;
    let (mut workflows, mut kept) = (HashSet::new(), 0);
    while let Some(message) = reader.next_message().map_err(failed)? {
        if matcher.owned(&message).is_none() {
            workflows.extend(workflow_of(&message));
            writer.message(message).map_err(failed)?;
            kept += 1;
        }
    }
    let (part, _) = writer.finish_with(workflows.len() as u64).map_err(failed)?;
    part.as_file().sync_all().map_err(|error| failed(error.into()))?;
    if verify(part.path(), first, before).is_ok_and(|messages| messages == kept) {
        Ok(part)
    } else {
        Err(PersonalError::NotVerified { file: file.to_owned() })
    }
}

/// Removes what processes that died were writing. What is being written now may hold what is to be erased.
fn clear_parts(folder: &Path, namespace: &str, now: Timestamp) -> Result<(), PersonalError> {
    let prefix = part::prefix(namespace);
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)) {
            continue;
        }
        // It may have got its name, or have been removed, meanwhile.
        let Ok(written) = entry.metadata().and_then(|part| part.modified()) else { continue };
        let written = Timestamp::from(OffsetDateTime::from(written));
        if u128::from(now.ms_since(written)) < ABANDONED.as_millis() {
            return Err(PersonalError::BeingArchived { folder: folder.to_owned() });
        }
        fs::remove_file(entry.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use throughline_actors::ports::clock::Clock;
    use throughline_schemas::UserId;

    use super::*;
    use crate::{
        archive::{file_name, tests::header},
        personal::Whom,
        system::SystemClock,
    };

    const LONG_AGO: Duration = Duration::from_secs(1_700_000_000);

    fn archive(folder: &Path, first: u64, users: &[&str]) -> PathBuf {
        let file = folder.join(file_name("shop", first, first + users.len() as u64));
        let mut writer = Writer::new(File::create(&file).unwrap(), &header()).unwrap();
        for (sequence, user) in (first..).zip(users) {
            let body = format!(r#"{{"user_id":"{user}","session_id":"s","user_input":"hi"}}"#);
            let message = StoredEvent {
                sequence,
                subject: "shop.v1.user_input_received".to_owned(),
                stored_at: Timestamp::from_unix_ms(0),
                headers: Vec::new(),
                body: body.into(),
            };
            writer.message(message).unwrap();
        }
        writer.finish().unwrap().0.set_modified(SystemTime::UNIX_EPOCH + LONG_AGO).unwrap();
        file
    }

    /// Rewrites, or only tells.
    fn forget(folder: &Path, dry_run: bool) -> Result<Rewritten, PersonalError> {
        rewrite(folder, "shop", &mut matcher("ann"), dry_run, SystemClock.now())
    }

    fn matcher(user: &str) -> Matcher {
        Matcher::new(Whom::User(UserId::new(user).unwrap()), [])
    }

    #[test]
    fn what_is_theirs_is_taken_out_and_the_rest_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let mixed = archive(folder, 1, &["ann", "bob", "ann", "bob"]);
        let (others, theirs) = (archive(folder, 5, &["bob", "eve"]), archive(folder, 7, &["ann"]));
        let untouched = fs::read(&others).unwrap();
        let wanted = Rewritten { archives: 2, messages: 3 };
        assert_eq!(forget(folder, true).unwrap(), wanted, "only told");
        assert_eq!(verify(&mixed, 1, 5).unwrap(), 4);
        assert_eq!(forget(folder, false).unwrap(), wanted);
        assert_eq!((verify(&mixed, 1, 5).unwrap(), verify(&theirs, 7, 8).unwrap()), (2, 0));
        assert_eq!(fs::read(&others).unwrap(), untouched);
        let written = fs::metadata(&mixed).unwrap().modified().unwrap();
        assert_eq!(written, SystemTime::UNIX_EPOCH + LONG_AGO, "its age stays");
        let again = forget(folder, false).unwrap();
        assert_eq!(again, Rewritten::default());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3, "nothing is left beside them");
        assert_eq!(forget(&folder.join("none"), false).unwrap(), again);
    }

    #[test]
    fn an_archive_that_cannot_be_read_is_named_and_one_in_the_making_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = archive(dir.path(), 1, &["ann"]);
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 20]).unwrap();
        let damaged = forget(dir.path(), false).unwrap_err();
        assert!(damaged.to_string().contains("shop-1-1.jsonl.gz"), "{damaged}");
        fs::write(&file, &whole).unwrap();
        let part = dir.path().join(".part-shop-x");
        fs::write(&part, "ann").unwrap();
        let busy = forget(dir.path(), false).unwrap_err();
        assert!(matches!(busy, PersonalError::BeingArchived { .. }), "{busy}");
        // Nobody has written to it for long.
        File::options().write(true).open(&part).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(forget(dir.path(), false).unwrap().messages, 1);
        assert!(!part.exists());
    }
}
