//! What a database's errors mean to a stage.

use std::{error::Error, iter::successors, sync::Arc};

use sqlx::{migrate::MigrateError, postgres::PgDatabaseError, sqlite::SqliteError};
use throughline_actors::ports::store::StoreError;

use super::{postgres, sqlite};

/// The variants of [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Busy,
    Unavailable,
    Refused,
}

/// The tables are not the ones that this version makes.
#[derive(Debug, thiserror::Error)]
#[error(
    "its tables are of another version of Throughline, most likely a later one (migration {0} is not known here); run \
     that version, or set database.url to another database"
)]
pub(crate) struct OtherVersion(i64);

/// `context` is what was being done.
pub(super) fn from_sqlx(context: &'static str, error: sqlx::Error) -> StoreError {
    shared(context, &Arc::new(error))
}

/// As [`from_sqlx`], for every operation of a batch that failed together.
pub(super) fn shared(context: &'static str, error: &Arc<sqlx::Error>) -> StoreError {
    let source: Option<Box<dyn Error + Send + Sync>> = Some(match other_version(error) {
        Some(other) => Box::new(other),
        None => Box::new(Arc::clone(error)),
    });
    match kind(error) {
        Kind::Busy => StoreError::Busy { context, source },
        Kind::Unavailable => StoreError::Unavailable { context, source },
        Kind::Refused => StoreError::Refused { context, source },
    }
}

/// The migrator's own words would leave open what to do.
fn other_version(error: &sqlx::Error) -> Option<OtherVersion> {
    let sqlx::Error::Migrate(error) = error else { return None };
    if let MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) = &**error {
        Some(OtherVersion(*version))
    } else {
        None
    }
}

/// The code with which a PostgreSQL server refused, if one is among the causes of an error.
pub(crate) fn postgres_code<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e str> {
    let mut causes = successors(Some(error), |error| (**error).source());
    let sqlx: &Arc<sqlx::Error> = causes.find_map(|error| error.downcast_ref())?;
    let sqlx::Error::Database(error) = &**sqlx else { return None };
    Some(error.try_downcast_ref::<PgDatabaseError>()?.code())
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
            if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
                postgres::kind(error)
            } else if let Some(error) = error.try_downcast_ref::<SqliteError>() {
                sqlite::kind(error)
            } else {
                Kind::Refused
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_may_have_written_and_a_mistake_stays_a_mistake() {
        assert_eq!(kind(&sqlx::Error::WorkerCrashed), Kind::Unavailable);
        assert_eq!(kind(&sqlx::Error::PoolClosed), Kind::Unavailable);
        assert_eq!(kind(&sqlx::Error::RowNotFound), Kind::Refused);
        let newer = sqlx::Error::Migrate(Box::new(MigrateError::VersionMissing(99)));
        assert_eq!(kind(&newer), Kind::Refused);
    }
}
