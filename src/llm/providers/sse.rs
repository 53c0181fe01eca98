//! Server-sent events, by the rules of the WHATWG, within limits.
//!
//! The crates that parse them (eventsource-stream, sse-stream) keep lines and events of any size; a provider is not
//! trusted that far.

/// One event. Its id and the stream's reconnection time mean nothing to a model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// `message` where the stream does not say.
    pub name: &'a [u8],
    /// The `data` lines, with a line feed between each two.
    pub data: &'a [u8],
}

/// A line or an event is larger than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Takes the stream in pieces of any size.
#[derive(Debug)]
pub(super) struct Parser {
    /// Longest line, and most data of one event, in bytes.
    max_bytes: usize,
    /// A line that is not complete yet.
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// A carriage return ended the last piece: a line feed that comes next belongs to it.
    after_cr: bool,
    /// Nothing but (a part of) a byte order mark has come.
    at_start: bool,
    /// Lines that are none of the format's, one after the other, up to [`MAX_STRAY_BYTES`].
    stray: Vec<u8>,
}

const BOM: &[u8] = b"\xEF\xBB\xBF";
/// How much is kept of what is not of the format, to say what it was.
const MAX_STRAY_BYTES: usize = 16 * 1024;

impl Parser {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            line: Vec::new(),
            name: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_cr: false,
            at_start: true,
            stray: Vec::new(),
        }
    }

    /// Takes the next piece, and gives every event that it completes to `each`, whose error ends it.
    pub(super) fn push<E: From<TooLarge>>(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = piece;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            let (line, after) = rest.split_at(end);
            self.after_cr = after == b"\r";
            let ending = if after.starts_with(b"\r\n") { 2 } else { 1 };
            rest = &after[ending..];
            if self.line.is_empty() {
                self.line_ends(line, &mut each)?;
            } else {
                self.hold(line)?;
                // Its room is kept for the next line.
                let mut line = std::mem::take(&mut self.line);
                let result = self.line_ends(&line, &mut each);
                line.clear();
                self.line = line;
                result?;
            }
        }
        self.hold(rest)?;
        Ok(())
    }

    /// The stream is over. An event that was not ended by an empty line counts if it makes sense to `each`: the format
    /// would drop it, but servers forget the line. It is for `each` to tell a complete one from half of one.
    pub(super) fn finish<E: From<TooLarge>>(
        &mut self,
        mut each: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.line_ends(&line, &mut each)?;
        }
        self.dispatch(&mut each)
    }

    /// What came that is not of the format.
    pub(super) fn stray(&self) -> &[u8] {
        &self.stray
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), TooLarge> {
        if part.len() > self.max_bytes.saturating_sub(self.line.len()) {
            return Err(TooLarge);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn line_ends<E: From<TooLarge>>(
        &mut self,
        line: &[u8],
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let line =
            if std::mem::take(&mut self.at_start) { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.is_empty() {
            return self.dispatch(each);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(colon) => {
                (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]))
            }
            None => (line, &[][..]),
        };
        match field {
            b"data" => {
                if value.len() >= self.max_bytes.saturating_sub(self.data.len()) {
                    return Err(TooLarge.into());
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // Comments, and what only matters to who reconnects.
            b"" | b"id" | b"retry" => {}
            _ => {
                let room = MAX_STRAY_BYTES.saturating_sub(self.stray.len());
                self.stray.extend_from_slice(&line[..line.len().min(room)]);
            }
        }
        Ok(())
    }

    fn dispatch<E>(&mut self, each: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        let result = if self.has_data {
            let name = if self.name.is_empty() { &b"message"[..] } else { &self.name };
            each(Event { name, data: &self.data })
        } else {
            Ok(())
        };
        self.has_data = false;
        self.data.clear();
        self.name.clear();
        result
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
