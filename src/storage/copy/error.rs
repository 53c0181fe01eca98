//! Why a namespace is not copied, and what to do.

use throughline_actors::ports::store::StoreError;

use crate::storage::DatabaseError;

/// What stands in the way in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Occupied {
    /// It has the namespace, with another identity.
    #[error("belongs to another log")]
    OtherIdentity,
    /// It has the namespace with the identity of the source, and no copy made it.
    #[error(
        "has the identity of the source: it is the same database by another name, or was copied in another way"
    )]
    SameIdentity,
    /// It has rows of the namespace that the source does not have.
    #[error("has rows that the source does not have")]
    OtherRows,
}

/// Why a namespace is not copied, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Source and target are one.
    #[error("source and target are the same database, {0}; name another one with --to")]
    SameDatabase(String),
    /// There is no such database file.
    #[error("there is no database at {0}; correct database.url, or name the database to copy with --from")]
    NoSource(String),
    /// The source has never been used for the namespace.
    #[error(
        "the database {from} does not belong to the namespace {namespace}; correct nats.namespace or --from (one that only an \
         earlier version has used needs `throughline setup` first)"
    )]
    NoNamespace {
        /// The source.
        from: String,
        /// The namespace.
        namespace: String,
    },
    /// The source was copied to somewhere else.
    #[error(
        "the namespace {namespace} of the database {from} was copied to {to} before, or that was begun; give that target, or \
         copy from there"
    )]
    CopiedElsewhere {
        /// The source.
        from: String,
        /// The namespace.
        namespace: String,
        /// Where it was copied to.
        to: String,
    },
    /// The target has something else.
    #[error("the namespace {namespace} in the database {to} {why}; name an empty database with --to")]
    Occupied {
        /// The target.
        to: String,
        /// The namespace.
        namespace: String,
        /// What it has.
        why: Occupied,
    },
    /// A worker uses the source.
    #[error(
        "the worker {worker} uses the database {from}: it gave a sign of life {seen_s} s ago. Stop all workers of the \
         namespace, and run this again; if that one is gone, run it again in a minute"
    )]
    InUse {
        /// The source.
        from: String,
        /// A worker.
        worker: String,
        /// Since when it gave no sign of life.
        seen_s: u64,
    },
    /// What was written does not stand there.
    #[error(
        "rows of the table {table} differ in {to} from those that were copied: somebody else writes there; name an empty \
         database with --to"
    )]
    Differ {
        /// The target.
        to: String,
        /// The table.
        table: &'static str,
    },
    /// There are more or fewer rows than there should be.
    #[error(
        "the table {table} has {there} rows in {to}, and {here} in the source: somebody else writes there"
    )]
    Counts {
        /// The target.
        to: String,
        /// The table.
        table: &'static str,
        /// Rows of the target.
        there: u64,
        /// Rows of the source.
        here: u64,
    },
    /// The source does not answer, or not as it should.
    #[error("the database {place} cannot be used")]
    Database {
        /// Which one.
        place: String,
        /// Why.
        #[source]
        source: DatabaseError,
    },
}

impl CopyError {
    pub(super) fn of(place: &str) -> impl Fn(StoreError) -> Self {
        let place = place.to_owned();
        move |error| Self::Database { place: place.clone(), source: DatabaseError::Store(error) }
    }

    /// Whether a database did not do its part, rather than something having been wrong with what was asked.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Database { source: DatabaseError::Store(_), .. } => true,
            Self::Database { source: DatabaseError::Unknown, .. }
            | Self::SameDatabase(_)
            | Self::NoSource(_)
            | Self::NoNamespace { .. }
            | Self::CopiedElsewhere { .. }
            | Self::Occupied { .. }
            | Self::InUse { .. }
            | Self::Differ { .. }
            | Self::Counts { .. } => false,
        }
    }
}
