//! Reading an answer's body within limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

/// Room made for a body that announces its length is at most this, unless somebody has memory for all of it; more is made
/// when it really comes.
const MAX_RESERVED_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    pub max_bytes: usize,
    /// Longest pause between two pieces.
    pub between_pieces: Option<Duration>,
    /// When the whole body must be there.
    pub deadline: Instant,
}

#[derive(Debug)]
pub(crate) enum BodyError {
    TooLarge,
    /// There is no memory now for a body of so many bytes, which is what it may have.
    NoRoom(usize),
    /// The pause between two pieces was too long.
    Stalled,
    /// The deadline passed.
    Late,
    Broken(reqwest::Error),
}

/// Reads the whole body. A length above the cap is refused before anything is read.
pub(crate) async fn read(response: Response, limits: BodyLimits) -> Result<Bytes, BodyError> {
    read_reserving(response, limits, MAX_RESERVED_BYTES, usize::MAX, |_| true).await
}

/// The same where `has_room` says whether there is memory for a body of so many bytes. It is asked once: of an announced
/// length before anything is read; of a body without one when more than `unasked` bytes have come, about all that it may have.
pub(crate) async fn read_where(
    response: Response,
    limits: BodyLimits,
    unasked: usize,
    has_room: impl Fn(usize) -> bool,
) -> Result<Bytes, BodyError> {
    // Growing a large body piece by piece would copy it, and take up to three times its size.
    read_reserving(response, limits, usize::MAX, unasked, has_room).await
}

async fn read_reserving(
    mut response: Response,
    limits: BodyLimits,
    most_reserved: usize,
    unasked: usize,
    has_room: impl Fn(usize) -> bool,
) -> Result<Bytes, BodyError> {
    let announced =
        response.content_length().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced > limits.max_bytes {
        return Err(BodyError::TooLarge);
    }
    if announced > 0 && !has_room(announced) {
        return Err(BodyError::NoRoom(announced));
    }
    let mut asked = announced > 0;
    // Most bodies come in one piece, which is then handed on without a copy.
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let pause_ends = limits.between_pieces.map_or(limits.deadline, super::after);
        let piece = match timeout_at(pause_ends.min(limits.deadline), response.chunk()).await {
            Ok(piece) => piece.map_err(BodyError::Broken)?,
            Err(_) if pause_ends < limits.deadline => return Err(BodyError::Stalled),
            Err(_) => return Err(BodyError::Late),
        };
        let Some(piece) = piece else {
            return Ok(if joined.is_empty() { first } else { joined.freeze() });
        };
        if piece.len() > limits.max_bytes - first.len().max(joined.len()) {
            return Err(BodyError::TooLarge);
        }
        if !asked && piece.len() + first.len().max(joined.len()) > unasked {
            asked = true;
            if !has_room(limits.max_bytes) {
                return Err(BodyError::NoRoom(limits.max_bytes));
            }
        }
        if first.is_empty() && joined.is_empty() {
            first = piece;
            continue;
        }
        if joined.is_empty() {
            joined.reserve(announced.min(most_reserved));
            joined.extend_from_slice(&first);
            first = Bytes::new();
        }
        joined.extend_from_slice(&piece);
    }
}
