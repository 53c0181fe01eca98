//! Looks at a file without changing it, nor what lies beside it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rustix::{
    fs::{Access, access, statvfs},
    io::Errno,
    process::{Flock, FlockOffsetType, FlockType, fcntl_getlk},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use throughline_actors::ports::store::{StoreError, StoreTrouble};
use tokio::time::sleep;

use super::{
    Limits,
    file::{DatabaseFile, migrations},
};
use crate::storage::{
    error,
    look::{Applied, Tables},
};

const LOOKING: &str = "looking at the SQLite file of `database.url`";
/// The byte of the `-shm` file that a writer has locked (`WAL_WRITE_LOCK` in SQLite's description of its format).
const WRITE_LOCK: u64 = 120;
/// A lock that is held at each of so many looks, so far apart, is not that of workers that commit.
const LOCK_LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// With less room than this nothing can be kept, in bytes.
const LEAST_ROOM: u64 = 64 * 1024;
/// How often a file is read to which a process begins to write meanwhile.
pub(in crate::storage) const READS: u32 = 3;

/// See [`crate::storage::look`]. `None` if there is no file.
pub(in crate::storage) async fn look(url: &str) -> Result<Option<Tables>, StoreError> {
    // What no worker would open is refused with the same words.
    let file = DatabaseFile::new(url, "", Limits::default())?;
    let tables = read(url, LOOKING, async |connection| {
        let table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'";
        let known: i64 = sqlx::query_scalar(table).fetch_one(&mut *connection).await?;
        let applied: Vec<Applied> = if known == 0 {
            Vec::new()
        } else {
            let applied = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";
            sqlx::query_as(applied).fetch_all(&mut *connection).await?
        };
        Tables::compare(&migrations(), &applied)
    })
    .await?;
    if tables.is_some() {
        takes_writes(file.path())?;
        // Only when nothing of this process has the file open: closing any handle of it drops SQLite's own locks.
        if is_locked(file.path()).await {
            return Err(StoreError::Busy { context: LOOKING, trouble: StoreTrouble::Locked, source: None });
        }
    }
    Ok(tables)
}

/// Asks the file something, if there is one, and leaves nothing behind: see [`lies_still`].
pub(super) async fn read<T>(
    url: &str,
    context: &'static str,
    ask: impl AsyncFn(&mut SqliteConnection) -> Result<T, sqlx::Error>,
) -> Result<Option<T>, StoreError> {
    let failed = |error| error::from_sqlx(context, error);
    let options = SqliteConnectOptions::from_str(url).map_err(failed)?.read_only(true);
    let options = sqlx::ConnectOptions::disable_statement_logging(options).create_if_missing(false);
    let path = options.get_filename().to_owned();
    for attempt in 1.. {
        if !path.exists() {
            break;
        }
        let is_still = lies_still(&path);
        let asked = async {
            let options = options.clone().immutable(is_still);
            let mut connection = SqliteConnection::connect_with(&options).await?;
            let answer = ask(&mut connection).await;
            connection.close().await?;
            answer
        };
        let answer = asked.await;
        // A process that began to write meanwhile may have moved what was being read.
        if is_still && !lies_still(&path) && attempt < READS {
            continue;
        }
        return answer.map(Some).map_err(failed);
    }
    Ok(None)
}

/// Whether a file may be read as it lies there (`immutable`), because nothing is written at it that is not in it.
///
/// Even a connection that only reads makes a write-ahead log where there is none, and leaves it. So a reader
/// reads a file without one like this, and only another one through its log.
pub(in crate::storage) fn lies_still(path: &Path) -> bool {
    !fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether this user may write, and whether there is room.
fn takes_writes(path: &Path) -> Result<(), StoreError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    for (place, trouble) in [(path, StoreTrouble::ReadOnly), (folder, StoreTrouble::Denied)] {
        if let Err(error) = access(place, Access::WRITE_OK) {
            let trouble = if error == Errno::ROFS { StoreTrouble::ReadOnly } else { trouble };
            let words = format!("{}: {}", place.display(), io::Error::from(error));
            return Err(StoreError::Refused { context: LOOKING, trouble, source: Some(words.into()) });
        }
    }
    // A file system that does not say has room.
    if let Ok(disk) = statvfs(folder)
        && disk.f_bavail.saturating_mul(disk.f_frsize) < LEAST_ROOM
    {
        let trouble = StoreTrouble::DiskFull;
        return Err(StoreError::Unavailable { context: LOOKING, trouble, source: None });
    }
    Ok(())
}

/// Whether a process holds the lock of writers, and keeps it.
async fn is_locked(path: &Path) -> bool {
    // Without this file no process has the database open.
    let Ok(shared) = File::open(beside(path, "-shm")) else { return false };
    for _ in 0..LOCK_LOOKS {
        let wanted = Flock {
            start: WRITE_LOCK,
            length: 1,
            pid: None,
            typ: FlockType::WriteLock,
            offset_type: FlockOffsetType::Set,
        };
        match fcntl_getlk(&shared, &wanted) {
            Ok(Some(_)) => sleep(BETWEEN_LOOKS).await,
            // A file system without such locks does not tell.
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::sqlite::SqliteStore;

    /// The database and its write-ahead log, to the byte, and how many files there are.
    fn bytes(folder: &Path) -> (Vec<Option<Vec<u8>>>, usize) {
        let kept = ["a.db", "a.db-wal"].map(|name| fs::read(folder.join(name)).ok());
        (kept.into(), fs::read_dir(folder).unwrap().count())
    }

    #[tokio::test]
    async fn a_file_is_looked_at_while_it_lies_still_and_while_it_is_used_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("a.db").display());
        assert_eq!(look(&url).await.unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let store = SqliteStore::open(&url, 1, "n").await.unwrap();
        let used = bytes(dir.path());
        assert_eq!(look(&url).await.unwrap(), Some(Tables::Current));
        assert!(bytes(dir.path()).0 == used.0, "as it was while a store uses it");
        store.close().await;
        let still = bytes(dir.path());
        assert_eq!(look(&url).await.unwrap(), Some(Tables::Current));
        assert!(bytes(dir.path()) == still, "as it was, and nothing is left beside it");
    }
}
