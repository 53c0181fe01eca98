//! What SQLite's result codes mean to a stage.

use sqlx::{error::DatabaseError, sqlite::SqliteError};

use crate::storage::error::Kind;

/// SQLite's primary result codes (`sqlite3.h`); an extended code carries one in its low byte.
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const NOMEM: u32 = 7;
const INTERRUPT: u32 = 9;
const IOERR: u32 = 10;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const PROTOCOL: u32 = 15;

pub(in crate::storage) fn kind(error: &SqliteError) -> Kind {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    // Without a code it is a text that SQLite's parser did not like.
    code.map_or(Kind::Refused, of_code)
}

fn of_code(extended: u32) -> Kind {
    match extended & 0xff {
        // PROTOCOL: the race for the log's lock was lost too often.
        BUSY | LOCKED | PROTOCOL | FULL => Kind::Busy,
        // An I/O error may come after the log was written and before it was known to be flushed.
        IOERR | NOMEM | INTERRUPT | CANTOPEN => Kind::Unavailable,
        _ => Kind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_codes_mean_what_their_primary_code_means() {
        const BUSY_SNAPSHOT: u32 = 517;
        const IOERR_FSYNC: u32 = 1034;
        const CONSTRAINT_UNIQUE: u32 = 2067;
        const READONLY_DBMOVED: u32 = 1032;
        assert_eq!(of_code(BUSY_SNAPSHOT), Kind::Busy);
        assert_eq!(of_code(FULL), Kind::Busy);
        assert_eq!(of_code(IOERR_FSYNC), Kind::Unavailable);
        assert_eq!(of_code(CONSTRAINT_UNIQUE), Kind::Refused);
        assert_eq!(of_code(READONLY_DBMOVED), Kind::Refused);
    }
}
