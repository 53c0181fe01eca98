//! Why something cannot be handed out or erased, and what to do.

use std::path::PathBuf;

use throughline_actors::ports::{bus::BusError, store::StoreError};

use super::Whom;
use crate::replay::recording::RecordingError;

/// Nothing was handed out, or not everything was erased.
#[derive(Debug, thiserror::Error)]
pub enum PersonalError {
    /// Turns of theirs wait or run.
    #[error(
        "{turns} turns of {whom} are open; let them end (`throughline list --{kind} ID --state waiting,running`), and run this \
         again. Nothing was erased",
        kind = whom.kind()
    )]
    Open {
        /// How many.
        turns: u64,
        /// Whose.
        whom: Whom,
    },
    /// Their messages may still be in the hands of a stage.
    #[error(
        "{workflows} workflows of {whom} have not ended in the log, or have only just; run this again in a minute. Nothing was \
         erased"
    )]
    Unsettled {
        /// How many.
        workflows: u64,
        /// Whose.
        whom: Whom,
    },
    /// They went on.
    #[error(
        "{whom} sent new messages while this went on; what was there before is erased; run this again when they have ended"
    )]
    WentOn {
        /// Whose.
        whom: Whom,
    },
    /// An archive cannot be read or written again.
    #[error("the archive {} cannot be rewritten; restore or delete it, and run this again", file.display())]
    Archive {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: RecordingError,
    },
    /// An archive does not hold what was written to it.
    #[error("the archive {} was not read back as it was written; its disk may be failing. The old one is as it was", file.display())]
    NotVerified {
        /// The file.
        file: PathBuf,
    },
    /// A worker is writing an archive, which may hold what is to be erased.
    #[error("an archive is being written in {}; run this again in a minute, which erases what is left", folder.display())]
    BeingArchived {
        /// The folder.
        folder: PathBuf,
    },
    /// The file to be written cannot be.
    #[error("the file cannot be written")]
    Write(#[from] std::io::Error),
    /// NATS did not do its part.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The database did not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task of this process ended.
    #[error("a task ended before its work was done")]
    Task(#[from] tokio::task::JoinError),
}

impl PersonalError {
    /// Whether a service did not do its part, rather than something being in the way.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Bus(_) | Self::Store(_) => true,
            Self::Open { .. }
            | Self::Unsettled { .. }
            | Self::WentOn { .. }
            | Self::Archive { .. }
            | Self::NotVerified { .. }
            | Self::BeingArchived { .. }
            | Self::Write(_)
            | Self::Task(_) => false,
        }
    }
}
