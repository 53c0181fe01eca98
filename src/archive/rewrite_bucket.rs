//! Archives of a bucket without what is to be erased.
//!
//! A bucket overwrites nothing: what has a name is replaced by pieces beside the old ones, which are dropped and stay in
//! the server's files until they are compacted. So the new archive is stored under a name of its own first, then the old
//! one is erased, then the new one gets the name, and what was stored first is erased. A process that is killed in between
//! leaves the archive under at least one of the two names.

use std::path::PathBuf;

use tempfile::{NamedTempFile, TempDir};

use super::{Rewritten, range_of, rewrite::without, theirs, verify::verify};
use crate::{
    bus::nats::{ArchiveBucket, NatsBus, StoredEvent},
    personal::{Matcher, PersonalError},
};

/// Behind the name of an archive: the same without what is to be erased, before it has that name.
const REWRITTEN: &str = ".anew";

/// Takes everything of theirs out of all archives of a bucket; with `dry_run` says how much that is.
pub(crate) async fn rewrite_bucket(
    bus: &NatsBus,
    bucket: &str,
    mut matcher: Matcher,
    dry_run: bool,
) -> Result<(Rewritten, Matcher), PersonalError> {
    let bucket = bus.archive_bucket(bucket).await?;
    let namespace = bus.namespace().as_str();
    let folder = tempfile::tempdir()?;
    if !dry_run {
        finish_earlier(&bucket, namespace, &folder).await?;
    }
    let mut rewritten = Rewritten::default();
    for (name, range) in archives_in(&bucket, namespace).await? {
        let file = fetch(&bucket, &folder, &name).await?;
        let Some(file) = file else { continue };
        let work = move || {
            let count = theirs(file.path(), &mut matcher, |_| Ok(()));
            (count, file, matcher)
        };
        let (count, file, learnt) = tokio::task::spawn_blocking(work).await?;
        matcher = learnt;
        let count = count?;
        if count == 0 {
            continue;
        }
        rewritten.archives += 1;
        rewritten.messages += count;
        if dry_run {
            continue;
        }
        let inside = folder.path().to_owned();
        let work = move || (without(file.path(), &inside, range, &mut matcher), matcher);
        let (written, learnt) = tokio::task::spawn_blocking(work).await?;
        matcher = learnt;
        replace(&bucket, &folder, &name, range, written?).await?;
    }
    Ok((rewritten, matcher))
}

/// Their messages in the archives of a bucket, archive by archive.
pub(crate) async fn theirs_in_bucket(
    bus: &NatsBus,
    bucket: &str,
    matcher: &mut Matcher,
    mut each: impl FnMut(&str, &StoredEvent) -> std::io::Result<()>,
) -> Result<u64, PersonalError> {
    let bucket = bus.archive_bucket(bucket).await?;
    let folder = tempfile::tempdir()?;
    let mut messages = 0;
    for (name, _) in archives_in(&bucket, bus.namespace().as_str()).await? {
        if let Some(file) = fetch(&bucket, &folder, &name).await? {
            messages += theirs(file.path(), matcher, |event| each(&name, event))?;
        }
    }
    Ok(messages)
}

/// In the order of the log.
async fn archives_in(
    bucket: &ArchiveBucket,
    namespace: &str,
) -> Result<Vec<(String, (u64, u64))>, PersonalError> {
    let mut found: Vec<_> = bucket
        .list()
        .await?
        .into_iter()
        .filter_map(|archive| Some((range_of(&archive.name, namespace)?, archive.name)))
        .map(|(range, name)| (name, range))
        .collect();
    found.sort_unstable_by_key(|(_, range)| *range);
    Ok(found)
}

/// `None` if it has gone meanwhile.
async fn fetch(
    bucket: &ArchiveBucket,
    folder: &TempDir,
    name: &str,
) -> Result<Option<NamedTempFile>, PersonalError> {
    let file = NamedTempFile::new_in(folder.path())?;
    Ok(bucket.get(name, file.path()).await?.then_some(file))
}

async fn replace(
    bucket: &ArchiveBucket,
    folder: &TempDir,
    name: &str,
    range: (u64, u64),
    written: NamedTempFile,
) -> Result<(), PersonalError> {
    let rewritten = format!("{name}{REWRITTEN}");
    bucket.put(&rewritten, written.path()).await?;
    if !is_whole(bucket, folder, &rewritten, range).await? {
        return Err(PersonalError::NotVerified { file: PathBuf::from(bucket.place_of(&rewritten)) });
    }
    bucket.erase(name).await?;
    give_name(bucket, folder, name, range, &written).await
}

/// The last two steps.
async fn give_name(
    bucket: &ArchiveBucket,
    folder: &TempDir,
    name: &str,
    range: (u64, u64),
    file: &NamedTempFile,
) -> Result<(), PersonalError> {
    bucket.put(name, file.path()).await?;
    if !is_whole(bucket, folder, name, range).await? {
        return Err(PersonalError::NotVerified { file: PathBuf::from(bucket.place_of(name)) });
    }
    bucket.erase(&format!("{name}{REWRITTEN}")).await?;
    Ok(())
}

async fn is_whole(
    bucket: &ArchiveBucket,
    folder: &TempDir,
    name: &str,
    (first, before): (u64, u64),
) -> Result<bool, PersonalError> {
    let file = NamedTempFile::new_in(folder.path())?;
    // What was erased in part cannot be fetched.
    if !bucket.get(name, file.path()).await.unwrap_or(false) {
        return Ok(false);
    }
    Ok(tokio::task::spawn_blocking(move || verify(file.path(), first, before).is_ok()).await?)
}

/// Completes what a killed process was doing: an archive that is whole is as it was before; else what was written again
/// gets its name.
async fn finish_earlier(
    bucket: &ArchiveBucket,
    namespace: &str,
    folder: &TempDir,
) -> Result<(), PersonalError> {
    for archive in bucket.list().await? {
        let Some(name) = archive.name.strip_suffix(REWRITTEN) else { continue };
        let Some(range) = range_of(name, namespace) else { continue };
        if is_whole(bucket, folder, name, range).await? {
            bucket.erase(&archive.name).await?;
        } else if let Some(file) = fetch(bucket, folder, &archive.name).await? {
            bucket.erase(name).await?;
            give_name(bucket, folder, name, range, &file).await?;
        }
    }
    Ok(())
}
