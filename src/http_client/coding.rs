//! Bodies that come compressed, unpacked piece by piece.
//!
//! What a body is, its first bytes say; its label only where they do not. Gateways unpack a body and leave the label, or
//! pack it and leave the label out.

use std::io::Write;

use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};

use super::text;

/// What is read, for `Accept-Encoding`. Uncompressed is preferred: a server that compresses a stream may hold pieces back.
pub(crate) const ACCEPTED: &str = "identity, gzip;q=0.5, deflate;q=0.5, br;q=0.5";
/// So many codings one around the other are unpacked.
const MAX_LAYERS: usize = 3;
/// So many bytes are looked at where the label does not fit the first ones.
const PREFIX: usize = 16;
/// Buffer of the brotli decoder, in bytes.
const BROTLI_BUFFER: usize = 16 * 1024;
/// Longest label that is repeated in a message, in characters.
const MAX_LABEL_CHARS: usize = 64;

/// A body that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodingError {
    /// It unpacks to more than allowed.
    #[error("it unpacks to more than is allowed")]
    TooLarge,
    /// It is not of the coding that it seems to be of.
    #[error("it is compressed ({0}), and cannot be unpacked")]
    Broken(&'static str),
    /// Its coding is none that was asked for.
    #[error("it is compressed ({0}), which was not asked for")]
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Label {
    Gzip,
    Deflate,
    Brotli,
    Other(String),
}

/// Takes a body in pieces of any size.
pub(crate) struct Unpacker {
    /// The codings that are still around, the innermost first.
    labels: Vec<Label>,
    layers: usize,
    state: State,
}

enum State {
    /// The first bytes, as long as they do not tell.
    Start(Vec<u8>),
    Plain,
    Packed {
        name: &'static str,
        decoder: Decoder,
        inner: Box<Unpacker>,
    },
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Sink>>),
    Zlib(Box<ZlibDecoder<Sink>>),
    Deflate(Box<DeflateDecoder<Sink>>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink>>),
}

/// What was unpacked of the last piece, up to a limit.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    room: usize,
    is_full: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.room {
            self.is_full = true;
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.room -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Unpacker {
    /// For the body of an answer with these headers.
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let mut labels = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
            for name in value.split(',').map(str::trim).take(MAX_LAYERS) {
                labels.push(match name {
                    "" | "identity" | "none" => continue,
                    "gzip" | "x-gzip" => Label::Gzip,
                    "deflate" => Label::Deflate,
                    "br" => Label::Brotli,
                    other => Label::Other(text::one_line(other, MAX_LABEL_CHARS)),
                });
            }
        }
        Self::of(labels, MAX_LAYERS)
    }

    fn of(labels: Vec<Label>, layers: usize) -> Self {
        Self { labels, layers, state: State::Start(Vec::new()) }
    }

    /// Whether the body may be larger or smaller than its announced length says.
    pub(crate) fn is_labelled(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Unpacks the next piece; of all that this makes, at most `max_bytes`.
    pub(crate) fn push(&mut self, piece: &[u8], max_bytes: usize) -> Result<Vec<u8>, CodingError> {
        if let State::Start(start) = &mut self.state {
            start.extend_from_slice(piece);
            let start = std::mem::take(start);
            if self.decide(&start, false)? {
                return self.unpack(&start, max_bytes);
            }
            self.state = State::Start(start);
            return Ok(Vec::new());
        }
        self.unpack(piece, max_bytes)
    }

    /// The body is over: what is left of it. A body that was cut is for others to notice: its content says so.
    pub(crate) fn finish(&mut self, max_bytes: usize) -> Result<Vec<u8>, CodingError> {
        if let State::Start(start) = &mut self.state {
            let start = std::mem::take(start);
            self.decide(&start, true)?;
            let mut all = self.unpack(&start, max_bytes)?;
            if matches!(self.state, State::Packed { .. }) {
                all.extend(self.finish(max_bytes)?);
            }
            return Ok(all);
        }
        let State::Packed { decoder, inner, .. } = &mut self.state else { return Ok(Vec::new()) };
        let out = decoder.end(max_bytes);
        let mut all = inner.push(&out, max_bytes)?;
        all.extend(inner.finish(max_bytes)?);
        Ok(all)
    }

    /// Finds out what the body is, if these first bytes tell.
    fn decide(&mut self, start: &[u8], is_all: bool) -> Result<bool, CodingError> {
        let Some(found) = recognise(start, self.labels.last(), is_all || start.len() >= PREFIX) else {
            return Ok(is_all);
        };
        let (name, decoder) = match found {
            Found::Plain => {
                self.state = State::Plain;
                return Ok(true);
            }
            Found::Gzip => ("gzip", Decoder::Gzip(Box::new(MultiGzDecoder::new(Sink::default())))),
            Found::Zlib => ("deflate", Decoder::Zlib(Box::new(ZlibDecoder::new(Sink::default())))),
            Found::Deflate => ("deflate", Decoder::Deflate(Box::new(DeflateDecoder::new(Sink::default())))),
            Found::Brotli => {
                let writer = brotli_decompressor::DecompressorWriter::new(Sink::default(), BROTLI_BUFFER);
                ("br", Decoder::Brotli(Box::new(writer)))
            }
            Found::Unknown(name) => return Err(CodingError::Unknown(name)),
        };
        if self.layers == 0 {
            return Err(CodingError::Broken(name));
        }
        self.labels.pop();
        let inner = Box::new(Self::of(std::mem::take(&mut self.labels), self.layers - 1));
        self.state = State::Packed { name, decoder, inner };
        Ok(true)
    }

    fn unpack(&mut self, piece: &[u8], max_bytes: usize) -> Result<Vec<u8>, CodingError> {
        match &mut self.state {
            State::Plain | State::Start(_) if piece.len() > max_bytes => Err(CodingError::TooLarge),
            State::Plain | State::Start(_) => Ok(piece.to_vec()),
            State::Packed { name, decoder, inner } => {
                let out = decoder.push(piece, max_bytes, name)?;
                inner.push(&out, max_bytes)
            }
        }
    }
}

impl Decoder {
    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
        }
    }

    fn push(&mut self, piece: &[u8], room: usize, name: &'static str) -> Result<Vec<u8>, CodingError> {
        self.sink().room = room;
        let written = match self {
            Self::Gzip(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Zlib(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(piece).and_then(|()| decoder.flush()),
        };
        let sink = self.sink();
        match written {
            _ if sink.is_full => Err(CodingError::TooLarge),
            // What follows the end of what was packed is nobody's.
            Err(_) if sink.bytes.is_empty() => Err(CodingError::Broken(name)),
            Ok(()) | Err(_) => Ok(std::mem::take(&mut sink.bytes)),
        }
    }

    fn end(&mut self, room: usize) -> Vec<u8> {
        self.sink().room = room;
        // An error says that it was cut.
        let _cut = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.close(),
        };
        std::mem::take(&mut self.sink().bytes)
    }
}

enum Found {
    Plain,
    Gzip,
    Zlib,
    Deflate,
    Brotli,
    Unknown(String),
}

/// What a body is that begins so; `None` if more of it has to be seen, which is not so once there is `enough`.
fn recognise(start: &[u8], label: Option<&Label>, enough: bool) -> Option<Found> {
    match (start, label) {
        ([] | [0x1F], _) | ([0x28], Some(Label::Other(_))) if !enough => None,
        ([0x1F, 0x8B, ..], _) => Some(Found::Gzip),
        ([0x28, 0xB5, 0x2F, 0xFD, ..], _) => Some(Found::Unknown("zstd".to_owned())),
        (_, None) => Some(Found::Plain),
        _ if !enough => None,
        _ if is_text(start) => Some(Found::Plain),
        ([first, second, ..], Some(Label::Deflate | Label::Gzip))
            if first & 0x0F == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0 =>
        {
            Some(Found::Zlib)
        }
        (_, Some(Label::Deflate)) => Some(Found::Deflate),
        (_, Some(Label::Brotli)) => Some(Found::Brotli),
        (_, Some(Label::Gzip)) => Some(Found::Gzip),
        (_, Some(Label::Other(name))) => Some(Found::Unknown(name.clone())),
    }
}

/// Whether these first bytes are of JSON, of events or of a page: packed bytes are not that plain.
fn is_text(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    let start = &start[..start.len().min(PREFIX)];
    start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~'))
}

#[cfg(test)]
#[path = "coding_tests.rs"]
mod tests;
