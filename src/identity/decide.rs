//! What it means when log and database know each other, or do not.

use crate::{bus::nats::Deployment, storage::Identity};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They belong together.
    Fine,
    /// They belong together, and the database is somewhere else than before.
    Moved {
        /// Where it was.
        from: String,
    },
    /// Neither knows anything: give both an identity.
    Claim,
    /// The log is new, or was wiped: it gets the database's identity.
    NewLog {
        /// That identity.
        identity: String,
    },
    /// There is an empty database where the namespace's was: its file was lost or replaced. It gets the log's identity.
    LostDatabase {
        /// That identity.
        identity: String,
    },
    /// They do not belong together.
    Refuse(Refusal),
}

/// Why a database is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is another one than the namespace's.
    #[error(
        "the namespace {namespace} belongs to the database {theirs}; this is another one, {ours}: point database.url there, or run \
         `throughline setup --adopt-database` to make this one its database (turns that are open in the other one then end only \
         as far as the log knows them)"
    )]
    Other {
        /// The namespace.
        namespace: String,
        /// Where its database is.
        theirs: String,
        /// Where the configured one is.
        ours: String,
    },
    /// Everything of the namespace was copied to another one.
    #[error(
        "the namespace {namespace} of the database {ours} was copied to {to}; set database.url to that one \
         (`throughline setup --adopt-database` would go on with what is left here, without what has happened there)"
    )]
    Copied {
        /// The namespace.
        namespace: String,
        /// Where the configured database is.
        ours: String,
        /// Where the copy is.
        to: String,
    },
    /// That was begun and is not done.
    #[error(
        "the namespace {namespace} of the database {ours} is being copied to {to}; let `throughline database copy` end, or run \
         it again, and set database.url to that one (`throughline setup --adopt-database` gives the copy up)"
    )]
    BeingCopied {
        /// The namespace.
        namespace: String,
        /// Where the configured database is.
        ours: String,
        /// Where it goes.
        to: String,
    },
}

/// Compares what the log says with the identity that the database at `ours` has of this namespace.
pub fn decide(namespace: &str, log: Option<&Deployment>, database: Option<&Identity>, ours: &str) -> Verdict {
    if let Some(copied) = database.and_then(|identity| identity.copied.as_ref()) {
        let (namespace, ours, to) = (namespace.to_owned(), ours.to_owned(), copied.place.clone());
        return Verdict::Refuse(if copied.is_complete {
            Refusal::Copied { namespace, ours, to }
        } else {
            Refusal::BeingCopied { namespace, ours, to }
        });
    }
    let refuse = |theirs: &str| {
        let (namespace, theirs, ours) = (namespace.to_owned(), theirs.to_owned(), ours.to_owned());
        Verdict::Refuse(Refusal::Other { namespace, theirs, ours })
    };
    match (log, database.map(|identity| identity.id.as_str())) {
        (None, None) => Verdict::Claim,
        (None, Some(identity)) => Verdict::NewLog { identity: identity.to_owned() },
        (Some(log), Some(identity)) if log.identity == identity && log.database == ours => Verdict::Fine,
        (Some(log), Some(identity)) if log.identity == identity => {
            Verdict::Moved { from: log.database.clone() }
        }
        (Some(log), None) if log.database == ours => Verdict::LostDatabase { identity: log.identity.clone() },
        (Some(log), Some(_) | None) => refuse(&log.database),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use crate::storage::CopiedTo;

    const HERE: &str = "sqlite h:/a/throughline.db";
    const THERE: &str = "sqlite h:/b/throughline.db";

    fn log(identity: &str, database: &str) -> Deployment {
        Deployment { identity: identity.into(), database: database.into(), log: "l".into() }
    }

    #[test]
    fn every_row_of_the_table() {
        let judged = |log: Option<&Deployment>, database: Option<&str>| {
            let identity = database.map(|id| Identity { id: id.into(), copied: None });
            decide("shop", log, identity.as_ref(), HERE)
        };
        let (known, moved) = (log("x", HERE), log("x", THERE));
        assert_eq!(judged(None, None), Verdict::Claim);
        assert_eq!(judged(None, Some("x")), Verdict::NewLog { identity: "x".into() });
        assert_eq!(judged(Some(&known), Some("x")), Verdict::Fine);
        assert_eq!(judged(Some(&moved), Some("x")), Verdict::Moved { from: THERE.into() });
        assert_eq!(judged(Some(&known), None), Verdict::LostDatabase { identity: "x".into() });
        for (log, database) in [(&moved, None), (&moved, Some("y")), (&known, Some("y"))] {
            let Verdict::Refuse(refusal) = judged(Some(log), database) else {
                panic!("{log:?} {database:?} must be refused");
            };
            let told = refusal.to_string();
            for part in ["namespace shop", log.database.as_str(), HERE, "database.url", "--adopt-database"] {
                assert!(told.contains(part), "{part}: {told}");
            }
        }
    }

    #[test]
    fn a_database_that_was_copied_is_refused_whatever_the_log_says() {
        for is_complete in [true, false] {
            let copied = Some(CopiedTo { place: "postgres db:5432/shop".into(), is_complete });
            let identity = Identity { id: "x".into(), copied };
            for log in [None, Some(&log("x", HERE)), Some(&log("x", THERE)), Some(&log("y", HERE))] {
                let Verdict::Refuse(refusal) = decide("shop", log, Some(&identity), HERE) else {
                    panic!("{log:?} must be refused");
                };
                let told = refusal.to_string();
                let what = if is_complete { "was copied" } else { "is being copied" };
                for part in ["namespace shop", HERE, what, "postgres db:5432/shop", "database.url"] {
                    assert!(told.contains(part), "{part}: {told}");
                }
            }
        }
    }
}
