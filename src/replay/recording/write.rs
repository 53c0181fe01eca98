//! Writing a recording, line by line.

use std::io::{BufWriter, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use sha2::{Digest, Sha256};
use throughline_schemas::recording::{Header, Line, MAX_LINE_BYTES, Message, Trailer, verbatim};

use super::{RecordingError, hex};
use crate::{bus::nats::StoredEvent, replay::history::History};

/// Writes a recording. What is written is no recording before [`Writer::finish`].
pub struct Writer<W: Write> {
    out: GzEncoder<BufWriter<W>>,
    digest: Sha256,
    messages: u64,
    workflows: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    pub fn new(out: W, header: &Header) -> Result<Self, RecordingError> {
        let out = GzEncoder::new(BufWriter::new(out), Compression::default());
        let mut writer = Self { out, digest: Sha256::new(), messages: 0, workflows: 0 };
        writer.line(header)?;
        Ok(writer)
    }

    /// Writes all messages of a workflow.
    pub fn write(&mut self, history: History) -> Result<(), RecordingError> {
        for event in history.events {
            self.message(event)?;
        }
        self.workflows += 1;
        Ok(())
    }

    /// Writes one message, of whichever workflow.
    pub fn message(&mut self, event: StoredEvent) -> Result<(), RecordingError> {
        let StoredEvent { sequence, subject, stored_at, headers, body } = event;
        let raw = verbatim(&body);
        let body_base64 = raw.is_none().then(|| STANDARD.encode(&body));
        let message = Message { sequence, subject, stored_at, headers, body: raw, body_base64 };
        self.line(&Line { message: Some(message), trailer: None })?;
        self.messages += 1;
        Ok(())
    }

    /// As [`Writer::finish`], for messages that were written one by one: they are of so many workflows.
    pub fn finish_with(self, workflows: u64) -> Result<(W, Trailer), RecordingError> {
        Self { workflows, ..self }.finish()
    }

    /// Writes the trailer; gives back what was written to.
    pub fn finish(mut self) -> Result<(W, Trailer), RecordingError> {
        let sha256 = hex(&self.digest.clone().finalize());
        let trailer = Trailer { messages: self.messages, workflows: self.workflows, sha256 };
        self.line(&Line { message: None, trailer: Some(trailer.clone()) })?;
        let out = self.out.finish()?;
        let out = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok((out, trailer))
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), RecordingError> {
        let mut bytes = serde_json::to_vec(line).map_err(RecordingError::Encode)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_LINE_BYTES {
            return Err(RecordingError::TooLong { line: self.messages + 2 });
        }
        self.digest.update(&bytes);
        self.out.write_all(&bytes)?;
        Ok(())
    }
}
