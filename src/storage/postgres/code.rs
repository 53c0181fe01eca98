//! What PostgreSQL's error codes mean to a stage (SQLSTATE, appendix A of its manual).

use sqlx::postgres::{PgDatabaseError, PgSeverity};
use throughline_actors::ports::store::StoreTrouble;

use crate::storage::error::{Kind, Meaning};

/// Two transactions could not both be done; nothing was written, and to try again is all there is to do.
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
/// `lock_timeout` and `statement_timeout` (or an operator who cancelled it): it was rolled back.
const LOCK_NOT_AVAILABLE: &str = "55P03";
const QUERY_CANCELED: &str = "57014";
/// The server is starting, or is recovering from a crash.
const CANNOT_CONNECT_NOW: &str = "57P03";
const TOO_MANY_CONNECTIONS: &str = "53300";
/// A standby: the primary is elsewhere now.
const READ_ONLY: &str = "25006";

const DISK_FULL: &str = "53100";
/// Who one is, and whether one may.
const INVALID_AUTHORIZATION: &str = "28000";
const INVALID_PASSWORD: &str = "28P01";
const INSUFFICIENT_PRIVILEGE: &str = "42501";
const UNKNOWN_DATABASE: &str = "3D000";
const UNKNOWN_SCHEMA: &str = "3F000";
/// What is missing of what the migrations make.
const UNDEFINED_TABLE: &str = "42P01";
const UNDEFINED_COLUMN: &str = "42703";
const UNDEFINED_FUNCTION: &str = "42883";
const DATA_CORRUPTED: &str = "XX001";
const INDEX_CORRUPTED: &str = "XX002";

pub(in crate::storage) fn meaning(error: &PgDatabaseError) -> Meaning {
    of_code(error.code())
}

fn of_code(code: &str) -> Meaning {
    use StoreTrouble as T;
    match code {
        SERIALIZATION_FAILURE | DEADLOCK_DETECTED => Meaning(Kind::Busy, T::Conflict),
        LOCK_NOT_AVAILABLE => Meaning(Kind::Busy, T::Locked),
        QUERY_CANCELED => Meaning(Kind::Busy, T::TooSlow),
        CANNOT_CONNECT_NOW => Meaning(Kind::Busy, T::Unreachable),
        READ_ONLY => Meaning(Kind::Busy, T::ReadOnly),
        DISK_FULL => Meaning(Kind::Busy, T::DiskFull),
        TOO_MANY_CONNECTIONS => Meaning(Kind::Busy, T::TooManyConnections),
        INVALID_AUTHORIZATION | INVALID_PASSWORD => Meaning(Kind::Busy, T::WrongPassword),
        INSUFFICIENT_PRIVILEGE => Meaning(Kind::Busy, T::Denied),
        UNKNOWN_DATABASE => Meaning(Kind::Busy, T::NoDatabase),
        UNDEFINED_TABLE | UNDEFINED_COLUMN | UNDEFINED_FUNCTION | UNKNOWN_SCHEMA => {
            Meaning(Kind::Busy, T::OtherVersion)
        }
        DATA_CORRUPTED | INDEX_CORRUPTED => Meaning(Kind::Unavailable, T::Corrupt),
        _ => match code.get(..2) {
            // No room: in memory, for a lock.
            Some("53") => Meaning(Kind::Busy, T::OutOfResources),
            // The connection, an operator's intervention (57P01: the backend was asked to end, perhaps after its
            // commit).
            Some("08" | "57") => Meaning(Kind::Unavailable, T::Unreachable),
            // The system below (58030: an I/O error).
            Some("58") => Meaning(Kind::Unavailable, T::Io),
            _ => Meaning(Kind::Refused, T::Refused),
        },
    }
}

/// Whether trying again at once may help.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| [SERIALIZATION_FAILURE, DEADLOCK_DETECTED].contains(&code))
}

/// Whether the server will take connections soon.
pub(super) fn is_starting(error: &sqlx::Error) -> bool {
    if let sqlx::Error::Io(error) = error {
        return error.kind() == std::io::ErrorKind::ConnectionRefused;
    }
    code(error).is_some_and(|code| [CANNOT_CONNECT_NOW, TOO_MANY_CONNECTIONS].contains(&code))
}

/// Whether the connection can be used again: the server refused a statement and is still there to say so.
pub(super) fn is_survived(error: &sqlx::Error) -> bool {
    postgres(error)
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Error) && error.code() != READ_ONLY)
}

fn code(error: &sqlx::Error) -> Option<&str> {
    postgres(error).map(PgDatabaseError::code)
}

fn postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_is_wrong_and_whether_it_may_have_happened() {
        use StoreTrouble as T;
        const UNIQUE_VIOLATION: &str = "23505";
        const OUT_OF_MEMORY: &str = "53200";
        const ADMIN_SHUTDOWN: &str = "57P01";
        const CRASH_SHUTDOWN: &str = "57P02";
        const CONNECTION_FAILURE: &str = "08006";
        const IO_ERROR: &str = "58030";
        for (code, kind, trouble) in [
            (SERIALIZATION_FAILURE, Kind::Busy, T::Conflict),
            (DEADLOCK_DETECTED, Kind::Busy, T::Conflict),
            (LOCK_NOT_AVAILABLE, Kind::Busy, T::Locked),
            (QUERY_CANCELED, Kind::Busy, T::TooSlow),
            (DISK_FULL, Kind::Busy, T::DiskFull),
            (OUT_OF_MEMORY, Kind::Busy, T::OutOfResources),
            (TOO_MANY_CONNECTIONS, Kind::Busy, T::TooManyConnections),
            (READ_ONLY, Kind::Busy, T::ReadOnly),
            (INVALID_PASSWORD, Kind::Busy, T::WrongPassword),
            (INVALID_AUTHORIZATION, Kind::Busy, T::WrongPassword),
            (INSUFFICIENT_PRIVILEGE, Kind::Busy, T::Denied),
            (UNKNOWN_DATABASE, Kind::Busy, T::NoDatabase),
            (UNDEFINED_FUNCTION, Kind::Busy, T::OtherVersion),
            (UNDEFINED_TABLE, Kind::Busy, T::OtherVersion),
            (DATA_CORRUPTED, Kind::Unavailable, T::Corrupt),
            (ADMIN_SHUTDOWN, Kind::Unavailable, T::Unreachable),
            (CRASH_SHUTDOWN, Kind::Unavailable, T::Unreachable),
            (CONNECTION_FAILURE, Kind::Unavailable, T::Unreachable),
            (IO_ERROR, Kind::Unavailable, T::Io),
            (UNIQUE_VIOLATION, Kind::Refused, T::Refused),
            ("", Kind::Refused, T::Refused),
        ] {
            assert_eq!(of_code(code), Meaning(kind, trouble), "{code}");
        }
    }
}
