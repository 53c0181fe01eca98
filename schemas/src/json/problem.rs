//! Why a text cannot be read as JSON, and where.

use std::fmt;

use super::MAX_DEPTH;

/// A place in a text, as editors count: from 1, columns in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of the byte at this offset.
    pub(super) fn of(bytes: &[u8], offset: usize) -> Self {
        let before = bytes.get(..offset).unwrap_or(bytes);
        let lines = || before.split(|byte| *byte == b'\n');
        Self { line: lines().count(), column: lines().next_back().map_or(0, <[u8]>::len) + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// Why a text cannot be read as JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonProblem {
    /// It begins with the byte order mark of UTF-16.
    #[error("it is UTF-16; send it as UTF-8")]
    Utf16,
    /// Some bytes are no UTF-8.
    #[error("it is not UTF-8 at {0}; send it as UTF-8")]
    NotUtf8(Place),
    /// It has a number that JSON has no form for.
    #[error("{path} is {name} at {place}, which JSON does not have; send null, a number or a text")]
    NotANumber {
        /// Which member, for example `metadata.scores[3]`.
        path: String,
        /// As it was written: `NaN`, `-Infinity`.
        name: String,
        /// Where it stands.
        place: Place,
    },
    /// A byte order mark stands where only the beginning has one.
    #[error("a byte order mark stands at {0}; remove it, only the beginning may have one")]
    ByteOrderMark(Place),
    /// It is nested too deeply.
    #[error(
        "it is nested more than {MAX_DEPTH} levels deep at {0}; send less nested data, or the inner part as a text"
    )]
    TooDeep(Place),
    /// Anything else.
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
}
