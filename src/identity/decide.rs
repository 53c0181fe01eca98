//! What it means when log and database know each other, or do not.

use crate::bus::nats::Deployment;

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

/// Another database than the namespace's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the namespace {namespace} belongs to the database {theirs}; this is another one, {ours}: point database.url there, or run \
     `throughline setup --adopt-database` to make this one its database (turns that are open in the other one then end only \
     as far as the log knows them)"
)]
pub struct Refusal {
    /// The namespace.
    pub namespace: String,
    /// Where its database is.
    pub theirs: String,
    /// Where the configured one is.
    pub ours: String,
}

/// Compares what the log says with the identity that the database at `ours` has of this namespace.
pub fn decide(namespace: &str, log: Option<&Deployment>, database: Option<&str>, ours: &str) -> Verdict {
    let refuse = |theirs: &str| {
        let (namespace, theirs, ours) = (namespace.to_owned(), theirs.to_owned(), ours.to_owned());
        Verdict::Refuse(Refusal { namespace, theirs, ours })
    };
    match (log, database) {
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

    const HERE: &str = "sqlite h:/a/throughline.db";
    const THERE: &str = "sqlite h:/b/throughline.db";

    fn log(identity: &str, database: &str) -> Deployment {
        Deployment { identity: identity.into(), database: database.into(), log: "l".into() }
    }

    #[test]
    fn every_row_of_the_table() {
        let judged = |log: Option<&Deployment>, database| decide("shop", log, database, HERE);
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
}
