//! Kinds of a database's errors, by what to do about them.

/// Why the database cannot be used. Adapters translate their driver's codes, each in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreTrouble {
    /// No room is left where it keeps its files.
    DiskFull,
    /// Another process holds a lock that is needed.
    Locked,
    /// It takes no writes: a read-only file or disk, a standby.
    ReadOnly,
    /// Its user, or that of this process, lacks a permission.
    Denied,
    /// Its file cannot be opened, or was removed or replaced while it was open.
    CannotOpen,
    /// Its files are damaged, or no database.
    Corrupt,
    /// It does not accept user and password.
    WrongPassword,
    /// The server has no database of this name.
    NoDatabase,
    /// The server has no connection left.
    TooManyConnections,
    /// Its tables are those of another version, or missing.
    OtherVersion,
    /// The certificate of its server is not accepted: it has expired, or its issuer is not trusted here.
    Untrusted,
    /// There is no answer, or the connection was lost.
    Unreachable,
    /// No answer came in time.
    TooSlow,
    /// It could not do this beside what others did.
    Conflict,
    /// The server is short of memory, locks or other resources.
    OutOfResources,
    /// Reading or writing its files failed.
    Io,
    /// The store of this process was closed.
    Closed,
    /// The configuration of it cannot be used.
    Misconfigured,
    /// It does not accept what was asked: the tables or this program are at fault.
    Refused,
}

impl StoreTrouble {
    /// Each of them.
    pub const ALL: [Self; 19] = [
        Self::DiskFull,
        Self::Locked,
        Self::ReadOnly,
        Self::Denied,
        Self::CannotOpen,
        Self::Corrupt,
        Self::WrongPassword,
        Self::NoDatabase,
        Self::TooManyConnections,
        Self::OtherVersion,
        Self::Untrusted,
        Self::Unreachable,
        Self::TooSlow,
        Self::Conflict,
        Self::OutOfResources,
        Self::Io,
        Self::Closed,
        Self::Misconfigured,
        Self::Refused,
    ];

    /// The name in logs, metrics and announcements.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk_full",
            Self::Locked => "locked",
            Self::ReadOnly => "read_only",
            Self::Denied => "permission_denied",
            Self::CannotOpen => "cannot_open",
            Self::Corrupt => "corrupt",
            Self::WrongPassword => "wrong_password",
            Self::NoDatabase => "no_database",
            Self::TooManyConnections => "too_many_connections",
            Self::OtherVersion => "other_version",
            Self::Untrusted => "untrusted",
            Self::Unreachable => "unreachable",
            Self::TooSlow => "too_slow",
            Self::Conflict => "conflict",
            Self::OutOfResources => "out_of_resources",
            Self::Io => "io",
            Self::Closed => "closed",
            Self::Misconfigured => "misconfigured",
            Self::Refused => "refused",
        }
    }

    /// What is wrong, as a sentence without its full stop.
    pub fn what(self) -> &'static str {
        match self {
            Self::DiskFull => "the disk of the database is full",
            Self::Locked => "the database is locked by somebody else",
            Self::ReadOnly => "the database is read-only",
            Self::Denied => "a permission on the database is missing",
            Self::CannotOpen => "the database file cannot be opened",
            Self::Corrupt => "the database is damaged",
            Self::WrongPassword => "the database does not accept the user and password",
            Self::NoDatabase => "the database does not exist on its server",
            Self::TooManyConnections => "the database server has no connection left",
            Self::OtherVersion => "the tables of the database are not those of this version",
            Self::Untrusted => "the certificate of the database's server is not accepted",
            Self::Unreachable => "the database cannot be reached",
            Self::TooSlow => "the database did not answer in time",
            Self::Conflict => "the database was busy with the same rows",
            Self::OutOfResources => "the database server is out of memory or locks",
            Self::Io => "reading or writing the files of the database failed",
            Self::Closed => "the database was closed",
            Self::Misconfigured => "the database cannot be used as it is configured",
            Self::Refused => "the database refused",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::DiskFull => "make room on it; what waits goes on by itself",
            Self::Locked => "end what holds the lock (a backup, a shell, a long transaction)",
            Self::ReadOnly => "make its file and its disk writable, or set database.url to the primary",
            Self::Denied => {
                "grant the user of database.url the rights on its tables, or on the file and its folder"
            }
            Self::CannotOpen => {
                "check that the file of database.url is there and may be opened, and its folder written to"
            }
            Self::Corrupt => "stop the workers and put a backup in its place, or repair it",
            Self::WrongPassword => "correct the user and the password of database.url",
            Self::NoDatabase => {
                "create it (createdb), or correct database.url; the first worker makes its tables"
            }
            Self::TooManyConnections => {
                "lower database.max_connections, or raise max_connections of the server"
            }
            Self::OtherVersion => "run the version that made them, or set database.url to another database",
            Self::Untrusted => {
                "renew it if it has expired, name in sslrootcert who made it, write the host that it is for into database.url, and look \
                 at this machine's clock"
            }
            Self::Unreachable => "start it, or correct database.url; look at the network in between",
            Self::TooSlow => "look at its load and at its disk",
            Self::Conflict => "nothing: it is tried again",
            Self::OutOfResources => "raise what the server's log says that it lacks",
            Self::Io => "look at its disk, and at the system's log",
            Self::Closed => "nothing: this process is stopping",
            Self::Misconfigured => "correct database.url",
            Self::Refused => "please report it together with this text",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_is_told_apart_and_says_what_to_do() {
        let names: BTreeSet<_> = StoreTrouble::ALL.into_iter().map(StoreTrouble::as_str).collect();
        assert_eq!(names.len(), StoreTrouble::ALL.len());
        let words: BTreeSet<_> = StoreTrouble::ALL.into_iter().map(StoreTrouble::what).collect();
        assert_eq!(words.len(), StoreTrouble::ALL.len());
        assert!(StoreTrouble::ALL.into_iter().all(|trouble| !trouble.advice().is_empty()));
    }
}
