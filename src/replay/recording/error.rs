//! Why a recording cannot be written or read, and what to do about it.

use std::io;

use throughline_schemas::recording::{MAX_LINE_BYTES, VERSION};

/// A recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened, read or written.
    #[error("the file cannot be read or written")]
    Io(#[from] io::Error),
    /// A line could not be written as JSON.
    #[error("a message cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// It is something else.
    #[error("it is not a recording: it is not gzip'd; use a file that `throughline record export` wrote")]
    NotGzip,
    /// It is something else, gzip'd.
    #[error("line 1: it is not the header of a recording; use a file that `throughline record export` wrote")]
    NotRecording,
    /// A newer version wrote it.
    #[error(
        "line 1: the recording has version {0}, and this throughline reads up to {VERSION}; use a newer one"
    )]
    Version(u32),
    /// A line is too long.
    #[error("line {line} has more than {MAX_LINE_BYTES} bytes; the file is damaged, export it again")]
    TooLong {
        /// Which.
        line: u64,
    },
    /// It ends too early.
    #[error("line {line}: the file ends here, before its trailer; it was cut short, copy or export it again")]
    Truncated {
        /// The line that is not there, or not whole.
        line: u64,
    },
    /// A line cannot be read.
    #[error("line {line} cannot be read; the file is damaged, copy or export it again")]
    Line {
        /// Which.
        line: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A line is neither a message nor the trailer, or its body is none.
    #[error("line {line} is neither a message nor the trailer; the file is damaged, copy or export it again")]
    NoMessage {
        /// Which.
        line: u64,
    },
    /// The compressed bytes are damaged.
    #[error("line {line}: the compressed data is damaged; copy or export the file again")]
    Corrupt {
        /// Where reading ended.
        line: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The checksum is another one.
    #[error(
        "line {line}: the checksum is wrong: the file was changed after it was written; copy or export it again"
    )]
    Checksum {
        /// The trailer's.
        line: u64,
    },
    /// Something follows the trailer.
    #[error("line {line} follows the trailer; the file was changed after it was written, export it again")]
    Surplus {
        /// Which.
        line: u64,
    },
}
