//! Reading an archive back.

use std::path::Path;

use crate::replay::recording::{Reader, RecordingError};

/// Why a file is not the archive that it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotWhole {
    /// It cannot be read, is cut short, or its checksum is wrong.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// It is whole, and of something else.
    #[error("it holds {found}, not the messages {first} to {last}")]
    Other {
        /// What it holds.
        found: String,
        /// The first that it should hold.
        first: u64,
        /// The last.
        last: u64,
    },
}

/// Reads the whole file; how many messages it holds. The checksum, the count and the end are the reader's business; here
/// it is that every sequence lies in the range and behind the one before it.
pub(super) fn verify(file: &Path, first: u64, before: u64) -> Result<u64, NotWhole> {
    let mut reader = Reader::open(file)?;
    let (mut messages, mut next) = (0, first);
    while let Some(message) = reader.next_message()? {
        if message.sequence < next || message.sequence >= before {
            let found = format!("the message {} where {next} was to come", message.sequence);
            return Err(NotWhole::Other { found, first, last: before.saturating_sub(1) });
        }
        next = message.sequence + 1;
        messages += 1;
    }
    Ok(messages)
}
