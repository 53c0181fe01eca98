//! Reading a recording, line by line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use throughline_schemas::recording::{FORMAT, Header, Line, MAX_LINE_BYTES, Message, Trailer, VERSION};

use super::{RecordingError, hex};
use crate::bus::nats::StoredEvent;

/// What every gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads a recording. One line is in memory at a time. The checksum is known to be right only after the last message.
pub struct Reader<R: Read> {
    lines: BufReader<GzDecoder<BufReader<R>>>,
    header: Header,
    digest: Sha256,
    line: u64,
    messages: u64,
    trailer: Option<Trailer>,
}

impl Reader<File> {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        Self::new(File::open(path)?)
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    pub fn new(from: R) -> Result<Self, RecordingError> {
        #[derive(Deserialize)]
        struct Kind {
            format: String,
            version: u32,
        }
        let mut from = BufReader::new(from);
        if !from.fill_buf()?.starts_with(&GZIP) {
            return Err(RecordingError::NotGzip);
        }
        let mut lines = BufReader::new(GzDecoder::new(from));
        let first = next_line(&mut lines, 1)?.ok_or(RecordingError::Truncated { line: 1 })?;
        let kind: Kind = serde_json::from_slice(&first).map_err(|_| RecordingError::NotRecording)?;
        if kind.format != FORMAT {
            return Err(RecordingError::NotRecording);
        }
        if kind.version > VERSION {
            return Err(RecordingError::Version(kind.version));
        }
        let header =
            serde_json::from_slice(&first).map_err(|source| RecordingError::Line { line: 1, source })?;
        let digest = Sha256::new().chain_update(&first);
        Ok(Self { lines, header, digest, line: 1, messages: 0, trailer: None })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The trailer, once all has been read and found to be whole.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// The next message; `None` after the last one, if the file is whole.
    pub fn next_message(&mut self) -> Result<Option<StoredEvent>, RecordingError> {
        if self.trailer.is_some() {
            return Ok(None);
        }
        self.line += 1;
        let line = self.line;
        let bytes = next_line(&mut self.lines, line)?.ok_or(RecordingError::Truncated { line })?;
        let read: Line =
            serde_json::from_slice(&bytes).map_err(|source| RecordingError::Line { line, source })?;
        match (read.message, read.trailer) {
            (Some(message), None) => {
                self.digest.update(&bytes);
                self.messages += 1;
                stored(message).map(Some).ok_or(RecordingError::NoMessage { line })
            }
            (None, Some(trailer)) => {
                if trailer.sha256 != hex(&self.digest.clone().finalize()) || trailer.messages != self.messages
                {
                    return Err(RecordingError::Checksum { line });
                }
                // Reading to the end also checks the checksum of gzip.
                if next_line(&mut self.lines, line + 1)?.is_some() {
                    return Err(RecordingError::Surplus { line: line + 1 });
                }
                self.trailer = Some(trailer);
                Ok(None)
            }
            (Some(_), Some(_)) | (None, None) => Err(RecordingError::NoMessage { line }),
        }
    }
}

fn stored(message: Message) -> Option<StoredEvent> {
    let Message { sequence, subject, stored_at, headers, body, body_base64 } = message;
    let body = match (body, body_base64) {
        (Some(raw), None) => String::from(Box::<str>::from(raw)).into_bytes(),
        (None, Some(text)) => STANDARD.decode(text).ok()?,
        (Some(_), Some(_)) | (None, None) => return None,
    };
    Some(StoredEvent { sequence, subject, stored_at, headers, body: body.into() })
}

/// The next line with its line break; `None` at the end.
fn next_line(lines: &mut impl BufRead, line: u64) -> Result<Option<Vec<u8>>, RecordingError> {
    let mut bytes = Vec::new();
    let limit = MAX_LINE_BYTES as u64 + 1;
    match lines.take(limit).read_until(b'\n', &mut bytes) {
        Ok(0) => Ok(None),
        Ok(_) if bytes.len() > MAX_LINE_BYTES => Err(RecordingError::TooLong { line }),
        Ok(_) if bytes.last() != Some(&b'\n') => Err(RecordingError::Truncated { line }),
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(RecordingError::Truncated { line }),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            Err(RecordingError::Corrupt { line, source: error })
        }
        Err(error) => Err(RecordingError::Io(error)),
    }
}
