//! What a database's errors mean to a stage.

use std::{error::Error, io, sync::Arc};

use sqlx::{migrate::MigrateError, postgres::PgDatabaseError, sqlite::SqliteError};
use throughline_actors::ports::store::{StoreError, StoreTrouble};

use super::{postgres, sqlite};
use crate::certificate;

/// The variants of [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Busy,
    Unavailable,
    Refused,
}

/// What an error of a driver means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning(pub(super) Kind, pub(super) StoreTrouble);

/// The tables are not the ones that this version makes.
#[derive(Debug, thiserror::Error)]
#[error(
    "its tables are of another version of Throughline, most likely a later one (migration {0} is not known here); run \
     that version, or set database.url to another database"
)]
pub(super) struct OtherVersion(i64);

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
    let Meaning(kind, trouble) = meaning(error);
    match kind {
        Kind::Busy => StoreError::Busy { context, trouble, source },
        Kind::Unavailable => StoreError::Unavailable { context, trouble, source },
        Kind::Refused => StoreError::Refused { context, trouble, source },
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

/// Whether another process holds a lock.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    meaning(error).1 == StoreTrouble::Locked
}

pub(super) fn is_refused(error: &sqlx::Error) -> bool {
    meaning(error).0 == Kind::Refused
}

/// The task that would have answered has ended.
pub(super) fn closed(context: &'static str) -> StoreError {
    StoreError::Unavailable { context, trouble: StoreTrouble::Closed, source: None }
}

pub(super) fn too_slow(context: &'static str) -> StoreError {
    let source = Some("no answer within the limit for one request".into());
    StoreError::Unavailable { context, trouble: StoreTrouble::TooSlow, source }
}

fn meaning(error: &sqlx::Error) -> Meaning {
    use StoreTrouble as T;
    match error {
        sqlx::Error::Database(error) => {
            if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
                postgres::meaning(error)
            } else if let Some(error) = error.try_downcast_ref::<SqliteError>() {
                sqlite::meaning(error)
            } else {
                Meaning(Kind::Refused, T::Refused)
            }
        }
        sqlx::Error::Migrate(error) => of_migration(error),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) if certificate::refused(error).is_some() => {
            Meaning(Kind::Unavailable, T::Untrusted)
        }
        sqlx::Error::Io(error) => Meaning(Kind::Unavailable, of_io(error.kind())),
        sqlx::Error::PoolTimedOut => Meaning(Kind::Unavailable, T::TooSlow),
        sqlx::Error::PoolClosed => Meaning(Kind::Unavailable, T::Closed),
        sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            Meaning(Kind::Unavailable, T::Unreachable)
        }
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => {
            Meaning(Kind::Refused, T::Misconfigured)
        }
        // Mistakes in a statement or in how its rows are read. The enum is open, and an error that nobody here has
        // thought about is not one to retry for ever.
        sqlx::Error::Protocol(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::AnyDriverError(_)
        | sqlx::Error::InvalidSavePointStatement
        | _ => Meaning(Kind::Refused, T::Refused),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open")]
fn of_io(kind: io::ErrorKind) -> StoreTrouble {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreTrouble::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => StoreTrouble::ReadOnly,
        io::ErrorKind::PermissionDenied => StoreTrouble::Denied,
        io::ErrorKind::TimedOut => StoreTrouble::TooSlow,
        io::ErrorKind::NotFound => StoreTrouble::CannotOpen,
        _ => StoreTrouble::Unreachable,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and has variants one must not name")]
fn of_migration(error: &MigrateError) -> Meaning {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => meaning(error),
        // A database of another version, or one whose migration was cut short.
        _ => Meaning(Kind::Refused, StoreTrouble::OtherVersion),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_may_have_written_and_a_mistake_stays_a_mistake() {
        use StoreTrouble as T;
        let io = |kind: io::ErrorKind| sqlx::Error::Io(kind.into());
        let newer = sqlx::Error::Migrate(Box::new(MigrateError::VersionMissing(99)));
        for (error, kind, trouble) in [
            (sqlx::Error::WorkerCrashed, Kind::Unavailable, T::Unreachable),
            (sqlx::Error::PoolClosed, Kind::Unavailable, T::Closed),
            (sqlx::Error::PoolTimedOut, Kind::Unavailable, T::TooSlow),
            (io(io::ErrorKind::ConnectionRefused), Kind::Unavailable, T::Unreachable),
            (io(io::ErrorKind::StorageFull), Kind::Unavailable, T::DiskFull),
            (io(io::ErrorKind::ReadOnlyFilesystem), Kind::Unavailable, T::ReadOnly),
            (io(io::ErrorKind::PermissionDenied), Kind::Unavailable, T::Denied),
            (sqlx::Error::RowNotFound, Kind::Refused, T::Refused),
            (sqlx::Error::Configuration("no port".into()), Kind::Refused, T::Misconfigured),
            (newer, Kind::Refused, T::OtherVersion),
        ] {
            assert_eq!(meaning(&error), Meaning(kind, trouble), "{error}");
        }
    }
}
