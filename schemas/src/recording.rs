//! Past workflows in a file: gzip'd JSON lines. The first is a [`Header`], then come [`Line`]s with a message each, and
//! the last one carries the [`Trailer`].

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::Timestamp;

/// What the first line says the file is.
pub const FORMAT: &str = "throughline-recording";
/// The version of the format that this crate describes. Readers refuse a higher one.
pub const VERSION: u32 = 1;
/// Longest line, in bytes: a body of 16 MiB in base64 takes 22 MiB.
pub const MAX_LINE_BYTES: usize = 24 * 1024 * 1024;

/// On an imported message: when it was stored where it was recorded, RFC 3339.
pub const RECORDED_AT: &str = "Throughline-Recorded-At";
/// On an imported message: its sequence there.
pub const RECORDED_SEQUENCE: &str = "Throughline-Recorded-Sequence";
/// On an imported message: its subject there.
pub const RECORDED_SUBJECT: &str = "Throughline-Recorded-Subject";

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// When the file was written.
    pub created_at: Timestamp,
    /// The namespace that it was read from.
    pub namespace: String,
    /// What was selected, in words.
    pub selection: String,
    /// Identifies the configuration as `throughline config` does; of the one with its addresses, which are not here.
    pub configuration_id: String,
    /// The keys that decide how a workflow goes; no keys of providers, no headers, no addresses.
    pub configuration: Value,
    /// The prompt of that configuration.
    pub prompt: Prompt,
    /// Rules by which text was replaced; empty: all is as it was.
    #[serde(default)]
    pub redacted: Vec<String>,
}

/// A prompt's templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Its id in the configuration.
    pub id: String,
    /// Text of `system.j2`.
    pub system: String,
    /// Text of `data.j2`.
    pub data: String,
    /// The hash that events carry.
    pub hash: String,
}

/// Any line but the first: one of the two.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Line {
    /// A stored message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// The end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trailer: Option<Trailer>,
}

/// A stored message.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The subject it was stored under.
    pub subject: String,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Its headers, by name.
    pub headers: Vec<(String, String)>,
    /// Its body, where that is JSON on one line: byte for byte as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    /// Its body otherwise, in standard base64 with padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Messages before it.
    pub messages: u64,
    /// Workflows that they belong to.
    pub workflows: u64,
    /// SHA-256, in lower-case hex, of all lines before it, uncompressed and with their line breaks.
    pub sha256: String,
}

/// The body as a value within a line, if nothing of it is lost there.
pub fn verbatim(body: &[u8]) -> Option<Box<RawValue>> {
    if body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    // `null` would be read as a message without a body.
    let value = RawValue::from_string(text.to_owned()).ok().filter(|value| value.get() != "null")?;
    (value.get().as_bytes() == body).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_back_byte_for_byte_is_written_as_json() {
        for good in [r#"{"b":1.0,"a":"é","a":2}"#, "3", r#""x""#, "[ 1 ]"] {
            assert_eq!(verbatim(good.as_bytes()).map(|value| value.get().to_owned()).as_deref(), Some(good));
        }
        for bad in [&b"{\n}"[..], b" 1", b"1 ", b"", b"\xff", b"{", b"null"] {
            assert!(verbatim(bad).is_none(), "{bad:?}");
        }
    }
}
