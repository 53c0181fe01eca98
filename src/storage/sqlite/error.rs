//! What SQLite's errors mean to a stage.

use std::sync::Arc;

use sqlx::migrate::MigrateError;
use throughline_actors::ports::store::StoreError;

/// SQLite's primary result codes (`sqlite3.h`); an extended code carries one in its low byte.
mod code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const NOMEM: u32 = 7;
    pub(super) const INTERRUPT: u32 = 9;
    pub(super) const IOERR: u32 = 10;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const PROTOCOL: u32 = 15;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Busy,
    Unavailable,
    Refused,
}

/// `context` is what was being done.
pub(super) fn from_sqlx(context: &'static str, error: sqlx::Error) -> StoreError {
    shared(context, &Arc::new(error))
}

/// As [`from_sqlx`], for every operation of a batch that failed together.
pub(super) fn shared(context: &'static str, error: &Arc<sqlx::Error>) -> StoreError {
    let source: Option<Box<dyn std::error::Error + Send + Sync>> = Some(Box::new(Arc::clone(error)));
    match kind(error) {
        Kind::Busy => StoreError::Busy { context, source },
        Kind::Unavailable => StoreError::Unavailable { context, source },
        Kind::Refused => StoreError::Refused { context, source },
    }
}

pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    kind(error) == Kind::Busy
}

pub(super) fn is_refused(error: &sqlx::Error) -> bool {
    kind(error) == Kind::Refused
}

/// The task that would have answered has ended.
pub(super) fn closed(context: &'static str) -> StoreError {
    StoreError::Unavailable { context, source: Some("the store is closed".into()) }
}

pub(super) fn too_slow(context: &'static str) -> StoreError {
    StoreError::Unavailable { context, source: Some("no answer within the limit for one request".into()) }
}

fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<u32>().ok());
            // Without a code it is a text that SQLite's parser did not like.
            code.map_or(Kind::Refused, of_code)
        }
        sqlx::Error::Migrate(error) => of_migration(error),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Kind::Unavailable,
        // Mistakes in a URL, in a statement or in how its rows are read. The enum is open, and an error that
        // nobody here has thought about is not one to retry for ever.
        sqlx::Error::Configuration(_)
        | sqlx::Error::InvalidArgument(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::AnyDriverError(_)
        | sqlx::Error::InvalidSavePointStatement
        | _ => Kind::Refused,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and has variants one must not name")]
fn of_migration(error: &MigrateError) -> Kind {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => kind(error),
        // A database of another version, or one whose migration was cut short.
        _ => Kind::Refused,
    }
}

fn of_code(extended: u32) -> Kind {
    match extended & 0xff {
        // PROTOCOL: the race for the log's lock was lost too often.
        code::BUSY | code::LOCKED | code::PROTOCOL | code::FULL => Kind::Busy,
        // An I/O error may come after the log was written and before it was known to be flushed.
        code::IOERR | code::NOMEM | code::INTERRUPT | code::CANTOPEN => Kind::Unavailable,
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
        assert_eq!(of_code(code::FULL), Kind::Busy);
        assert_eq!(of_code(IOERR_FSYNC), Kind::Unavailable);
        assert_eq!(of_code(CONSTRAINT_UNIQUE), Kind::Refused);
        assert_eq!(of_code(READONLY_DBMOVED), Kind::Refused);
    }

    #[test]
    fn a_lost_connection_may_have_written_and_a_mistake_stays_a_mistake() {
        assert_eq!(kind(&sqlx::Error::WorkerCrashed), Kind::Unavailable);
        assert_eq!(kind(&sqlx::Error::PoolClosed), Kind::Unavailable);
        assert_eq!(kind(&sqlx::Error::RowNotFound), Kind::Refused);
        let newer = sqlx::Error::Migrate(Box::new(MigrateError::VersionMissing(99)));
        assert_eq!(kind(&newer), Kind::Refused);
    }
}
