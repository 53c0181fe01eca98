//! What SQLite's result codes mean to a stage.

use sqlx::{error::DatabaseError, sqlite::SqliteError};
use throughline_actors::ports::store::StoreTrouble;

use crate::storage::error::{Kind, Meaning};

/// SQLite's primary result codes (`sqlite3.h`); an extended code carries one in its low byte.
const PERM: u32 = 3;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const NOMEM: u32 = 7;
const READONLY: u32 = 8;
const INTERRUPT: u32 = 9;
const IOERR: u32 = 10;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const PROTOCOL: u32 = 15;
const AUTH: u32 = 23;
const NOTADB: u32 = 26;
/// The file was renamed or removed while it was open.
const READONLY_DBMOVED: u32 = 1032;

pub(in crate::storage) fn meaning(error: &SqliteError) -> Meaning {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    match code {
        Some(code) => of_code(code, error.message()),
        // Without a code it is a text that SQLite's parser did not like.
        None => Meaning(Kind::Refused, StoreTrouble::Refused),
    }
}

/// A table that is missing has no code of its own.
fn of_code(extended: u32, message: &str) -> Meaning {
    use StoreTrouble as T;
    if extended == READONLY_DBMOVED {
        return Meaning(Kind::Unavailable, T::CannotOpen);
    }
    match extended & 0xff {
        // PROTOCOL: the race for the log's lock was lost too often.
        BUSY | LOCKED | PROTOCOL => Meaning(Kind::Busy, T::Locked),
        FULL => Meaning(Kind::Busy, T::DiskFull),
        READONLY => Meaning(Kind::Busy, T::ReadOnly),
        PERM | AUTH => Meaning(Kind::Busy, T::Denied),
        CANTOPEN => Meaning(Kind::Unavailable, T::CannotOpen),
        CORRUPT | NOTADB => Meaning(Kind::Unavailable, T::Corrupt),
        NOMEM => Meaning(Kind::Unavailable, T::OutOfResources),
        // An I/O error may come after the log was written and before it was known to be flushed.
        IOERR | INTERRUPT => Meaning(Kind::Unavailable, T::Io),
        _ if message.contains("no such table") || message.contains("no such column") => {
            Meaning(Kind::Busy, T::OtherVersion)
        }
        _ => Meaning(Kind::Refused, T::Refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_is_wrong_and_whether_it_may_have_happened() {
        use StoreTrouble as T;
        const BUSY_SNAPSHOT: u32 = 517;
        const IOERR_FSYNC: u32 = 1034;
        const CONSTRAINT_UNIQUE: u32 = 2067;
        const READONLY_DIRECTORY: u32 = 1544;
        const CANTOPEN_ISDIR: u32 = 526;
        const CORRUPT_INDEX: u32 = 779;
        const ERROR: u32 = 1;
        for (code, kind, trouble) in [
            (BUSY, Kind::Busy, T::Locked),
            (BUSY_SNAPSHOT, Kind::Busy, T::Locked),
            (LOCKED, Kind::Busy, T::Locked),
            (FULL, Kind::Busy, T::DiskFull),
            (READONLY, Kind::Busy, T::ReadOnly),
            (READONLY_DIRECTORY, Kind::Busy, T::ReadOnly),
            (READONLY_DBMOVED, Kind::Unavailable, T::CannotOpen),
            (PERM, Kind::Busy, T::Denied),
            (CANTOPEN, Kind::Unavailable, T::CannotOpen),
            (CANTOPEN_ISDIR, Kind::Unavailable, T::CannotOpen),
            (CORRUPT, Kind::Unavailable, T::Corrupt),
            (CORRUPT_INDEX, Kind::Unavailable, T::Corrupt),
            (NOTADB, Kind::Unavailable, T::Corrupt),
            (IOERR_FSYNC, Kind::Unavailable, T::Io),
            (CONSTRAINT_UNIQUE, Kind::Refused, T::Refused),
            (ERROR, Kind::Refused, T::Refused),
        ] {
            assert_eq!(of_code(code, "words"), Meaning(kind, trouble), "{code}");
        }
        let missing = of_code(ERROR, "no such table: turns");
        assert_eq!(missing, Meaning(Kind::Busy, T::OtherVersion), "nothing that was asked is at fault");
    }
}
