//! Where messages of the log are kept after they have been removed from it.

use async_trait::async_trait;
use throughline_schemas::Timestamp;

/// Messages could not be archived, or archives not removed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Reading the log, or writing the archive, failed.
    #[error("the archive {name} cannot be written: {reason}")]
    Failed {
        /// Which archive.
        name: String,
        /// Why, in words.
        reason: String,
        /// The error below.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// What was read back is not what was written.
    #[error("the archive {name} is not what was written: {reason}; see to the disk that it is on")]
    NotVerified {
        /// Which archive.
        name: String,
        /// What differs.
        reason: String,
    },
}

/// An archive that holds what was asked for, and has been read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// Where it is.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
}

/// A place for archives.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Writes the messages of the log from `first` up to, and without, `before`, with their large bodies; returns when
    /// they are safe there and have been read back and compared. An archive of these messages that is there already, and
    /// whole, is taken as it is.
    async fn keep(&self, first: u64, before: u64) -> Result<Archived, ArchiveError>;
    /// Removes archives that were written before this instant. How many.
    async fn forget(&self, written_before: Timestamp) -> Result<u64, ArchiveError>;
}
