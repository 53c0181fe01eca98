//! The body of an answer: unpacked, within its limits, and told for what it is by how it begins.

use bytes::Bytes;
use reqwest::{Response, Url};
use throughline_actors::ports::model::{ModelError, Phase};
use tokio::time::{Instant, timeout_at};

use crate::http_client;
use crate::http_client::coding::{CodingError, Unpacker};

/// A stream may be so many times larger than the answer in it: a token of four bytes comes in an event of some 300.
const FRAMING: usize = 64;
/// So many bytes of blanks and comments are looked past for the beginning of what comes, before its label decides.
const MAX_PRELUDE_BYTES: usize = 64 * 1024;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events.
    Events,
    /// One document, or several.
    Document,
}

/// The limits of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of a document; of one event, and of what is kept of all events.
    pub max_bytes: usize,
    /// Longest pause between two pieces, once it has begun.
    pub read: std::time::Duration,
    /// When it must have begun.
    pub begins_by: Instant,
    /// When all of it must be there.
    pub ends_by: Instant,
}

/// See the module's documentation.
pub(super) struct Incoming<'u> {
    response: Response,
    url: &'u Url,
    unpacker: Unpacker,
    /// What was read to see how it begins.
    ahead: Vec<u8>,
    is_over: bool,
    /// How many bytes may still come.
    left: usize,
    limits: Limits,
}

impl<'u> Incoming<'u> {
    pub(super) fn new(response: Response, url: &'u Url, limits: Limits) -> Self {
        let unpacker = Unpacker::new(response.headers());
        let left = limits.max_bytes.saturating_mul(FRAMING);
        Self { response, url, unpacker, ahead: Vec::new(), is_over: false, left, limits }
    }

    /// The next piece, whenever it comes; `None` at the end. Cancelling loses nothing.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, ModelError> {
        if !self.ahead.is_empty() {
            return Ok(Some(std::mem::take(&mut self.ahead).into()));
        }
        while !self.is_over {
            let packed = self.response.chunk().await;
            let packed =
                packed.map_err(|error| ModelError::CutShort(http_client::describe(self.url, &error)))?;
            // One piece that unpacks to more than a whole answer may be is a bomb.
            let room = self.left.min(self.limits.max_bytes);
            let piece = match &packed {
                Some(packed) => self.unpacker.push(packed, room),
                None => self.unpacker.finish(room),
            };
            self.is_over = packed.is_none();
            let piece = piece.map_err(|error| match error {
                CodingError::TooLarge => ModelError::TooLarge(self.limits.max_bytes),
                CodingError::Broken(_) | CodingError::Unknown(_) => {
                    ModelError::BadResponse(error.to_string())
                }
            })?;
            self.left = self.left.saturating_sub(piece.len());
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
        Ok(None)
    }

    /// The next piece, if it comes in time. `pause_ends` and `phase` are of the limit beside the one on the whole body.
    pub(super) async fn piece_by(
        &mut self,
        pause_ends: Instant,
        phase: Phase,
    ) -> Result<Option<Bytes>, ModelError> {
        match timeout_at(pause_ends.min(self.limits.ends_by), self.piece()).await {
            Ok(piece) => piece,
            Err(_) if pause_ends < self.limits.ends_by => Err(ModelError::TimedOut(phase)),
            Err(_) => Err(ModelError::TimedOut(Phase::Total)),
        }
    }

    /// What the body is: by its first bytes that are neither blank nor comment, else as `labelled`. `is_stream`: whether
    /// a stream was asked for, whose comments are no beginning.
    pub(super) async fn form(&mut self, labelled: Form, is_stream: bool) -> Result<Form, ModelError> {
        self.check_length(labelled)?;
        let mut seen = Vec::new();
        loop {
            match recognise(&seen) {
                Beginning::Is(form) => {
                    self.ahead = seen;
                    return Ok(form);
                }
                Beginning::IsAsLabelled => {
                    self.ahead = seen;
                    return Ok(labelled);
                }
                Beginning::IsToCome => {}
            }
            let (pause_ends, phase) = if seen.is_empty() || is_stream {
                (self.limits.begins_by, Phase::FirstToken)
            } else {
                (http_client::after(self.limits.read), Phase::Read)
            };
            match self.piece_by(pause_ends, phase).await? {
                Some(piece) if self.left > 0 && seen.len() < MAX_PRELUDE_BYTES => {
                    seen.extend_from_slice(&piece);
                    // What is only there to keep the connection is not kept.
                    if is_prelude(&seen) {
                        let keep = seen.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                        seen.drain(..keep);
                        if seen.is_empty() {
                            seen.push(b'\n');
                        }
                    }
                }
                Some(_) => return Err(ModelError::TooLarge(self.limits.max_bytes)),
                None => {
                    self.ahead = seen;
                    return Ok(labelled);
                }
            }
        }
    }

    /// Whether there may be more.
    pub(super) fn check_room(&self) -> Result<(), ModelError> {
        if self.left == 0 { Err(ModelError::TooLarge(self.limits.max_bytes)) } else { Ok(()) }
    }

    /// The whole body.
    pub(super) async fn document(&mut self) -> Result<Bytes, ModelError> {
        self.check_length(Form::Document)?;
        let max_bytes = self.limits.max_bytes;
        let mut whole = Bytes::new();
        let mut joined = Vec::new();
        loop {
            let pause_ends = http_client::after(self.limits.read);
            let Some(piece) = self.piece_by(pause_ends, Phase::Read).await? else {
                return Ok(if joined.is_empty() { whole } else { joined.into() });
            };
            if piece.len() > max_bytes - whole.len().max(joined.len()) {
                return Err(ModelError::TooLarge(max_bytes));
            }
            // Most bodies come in one piece, which is then handed on without a copy.
            if whole.is_empty() && joined.is_empty() {
                whole = piece;
            } else {
                if joined.is_empty() {
                    joined.extend_from_slice(&std::mem::take(&mut whole));
                }
                joined.extend_from_slice(&piece);
            }
        }
    }

    /// What comes of the body until then; what there is, if it is late, broken or too large.
    pub(super) async fn what_comes_by(&mut self, deadline: Instant) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(Ok(Some(piece))) = timeout_at(deadline, self.piece()).await {
            all.extend_from_slice(&piece);
            if all.len() >= self.limits.max_bytes {
                break;
            }
        }
        all
    }

    /// A document whose announced length is above the limit is refused before anything is read.
    fn check_length(&self, form: Form) -> Result<(), ModelError> {
        let announced = self.response.content_length().unwrap_or(0);
        let max = self.limits.max_bytes;
        let is_too_large = usize::try_from(announced).map_or(true, |announced| announced > max);
        if form == Form::Document && is_too_large && !self.unpacker.is_labelled() {
            return Err(ModelError::TooLarge(max));
        }
        Ok(())
    }
}

/// Whether there are but blanks and comments so far.
fn is_prelude(seen: &[u8]) -> bool {
    recognise(seen) == Beginning::IsToCome
}

/// What the first bytes of a body tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beginning {
    Is(Form),
    /// This is for the label to say.
    IsAsLabelled,
    /// There are but blanks and comments so far, or less than a word.
    IsToCome,
}

/// What it is that begins so.
fn recognise(seen: &[u8]) -> Beginning {
    const BOM: &[u8] = b"\xEF\xBB\xBF";
    match seen {
        // UTF-16, in which streams never come.
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Beginning::Is(Form::Document),
        [0xFF | 0xFE] => return Beginning::IsToCome,
        _ => {}
    }
    if !seen.is_empty() && seen.len() < BOM.len() && BOM.starts_with(seen) {
        return Beginning::IsToCome;
    }
    let mut rest = seen.strip_prefix(BOM).unwrap_or(seen);
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None => return Beginning::IsToCome,
            // A comment of a stream, which may also stand before a document.
            Some(b':') => match rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
                Some(end) => rest = &rest[end..],
                None => return Beginning::IsToCome,
            },
            Some(b'{' | b'[' | b'"') => return Beginning::Is(Form::Document),
            Some(_) => break,
        }
    }
    let field = |name: &[u8]| rest.starts_with(name);
    if [&b"data:"[..], b"event:", b"id:", b"retry:"].into_iter().any(field) {
        return Beginning::Is(Form::Events);
    }
    let begins_field =
        [&b"data:"[..], b"event:", b"id:", b"retry:"].into_iter().any(|name| name.starts_with(rest));
    if begins_field { Beginning::IsToCome } else { Beginning::IsAsLabelled }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_its_first_bytes_say() {
        let cases: [(&[u8], Beginning); 16] = [
            (b"{\"a\"", Beginning::Is(Form::Document)),
            (b" \r\n[", Beginning::Is(Form::Document)),
            (b"\xEF\xBB\xBF{", Beginning::Is(Form::Document)),
            (b"\xEF\xBB\xBFdata: x", Beginning::Is(Form::Events)),
            (b"data:", Beginning::Is(Form::Events)),
            (b"\n\nevent: x", Beginning::Is(Form::Events)),
            (b"id: 1", Beginning::Is(Form::Events)),
            (b"retry: 1", Beginning::Is(Form::Events)),
            (b": keep-alive\n\n{", Beginning::Is(Form::Document)),
            (b": keep-alive\n\ndata: x", Beginning::Is(Form::Events)),
            (b": keep-alive", Beginning::IsToCome),
            (b"da", Beginning::IsToCome),
            (b"\xEF\xBB", Beginning::IsToCome),
            (b" \n", Beginning::IsToCome),
            (b"<html>", Beginning::IsAsLabelled),
            (b"dates", Beginning::IsAsLabelled),
        ];
        for (body, expected) in cases {
            assert_eq!(recognise(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }
}
