//! Recordings: workflows in a file. The format is in `throughline_schemas::recording`.

mod error;
mod read;
mod redact;
mod write;

#[cfg(test)]
mod tests;

pub use error::RecordingError;
pub use read::Reader;
pub use redact::{Redaction, RedactionError};
pub use write::Writer;

use std::fmt::Write as _;

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
