//! What PostgreSQL's error codes mean to a stage (SQLSTATE, appendix A of its manual).

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::storage::error::Kind;

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

pub(in crate::storage) fn kind(error: &PgDatabaseError) -> Kind {
    of_code(error.code())
}

fn of_code(code: &str) -> Kind {
    match code {
        SERIALIZATION_FAILURE
        | DEADLOCK_DETECTED
        | LOCK_NOT_AVAILABLE
        | QUERY_CANCELED
        | CANNOT_CONNECT_NOW
        | READ_ONLY => Kind::Busy,
        _ => match code.get(..2) {
            // No room: on the disk, in memory, for a connection, for a lock.
            Some("53") => Kind::Busy,
            // The connection, an operator's intervention (57P01: the backend was told to end, perhaps after its
            // commit), the system below (58030: an I/O error).
            Some("08" | "57" | "58") => Kind::Unavailable,
            _ => Kind::Refused,
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
    fn a_code_says_whether_it_may_have_happened() {
        const UNIQUE_VIOLATION: &str = "23505";
        const UNDEFINED_FUNCTION: &str = "42883";
        const INVALID_PASSWORD: &str = "28P01";
        const DISK_FULL: &str = "53100";
        const ADMIN_SHUTDOWN: &str = "57P01";
        const CRASH_SHUTDOWN: &str = "57P02";
        const CONNECTION_FAILURE: &str = "08006";
        const IO_ERROR: &str = "58030";
        for code in [SERIALIZATION_FAILURE, DEADLOCK_DETECTED, DISK_FULL, TOO_MANY_CONNECTIONS, READ_ONLY] {
            assert_eq!(of_code(code), Kind::Busy, "{code}");
        }
        for code in [ADMIN_SHUTDOWN, CRASH_SHUTDOWN, CONNECTION_FAILURE, IO_ERROR] {
            assert_eq!(of_code(code), Kind::Unavailable, "{code}");
        }
        for code in [UNIQUE_VIOLATION, UNDEFINED_FUNCTION, INVALID_PASSWORD, ""] {
            assert_eq!(of_code(code), Kind::Refused, "{code}");
        }
    }
}
