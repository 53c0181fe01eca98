//! The lines of a file or of stdin, read one after the other with bounded memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    thread,
};

use tokio::sync::mpsc;

use crate::cli::Failure;

/// Longest line, in bytes: more than any server accepts as one message by default.
const MAX_LINE_BYTES: usize = 2 << 20;
/// Lines read ahead.
const AHEAD: usize = 64;

/// One line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct Line {
    /// From 1.
    pub(in crate::cli) number: u64,
    pub(in crate::cli) content: Result<Vec<u8>, LineError>,
}

/// Why a line has no content.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum LineError {
    #[error("is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("cannot be read: {0}")]
    Io(String),
}

/// Lines as they are read. The reading thread is left alone at the end of the process: stdin cannot be cancelled.
pub(in crate::cli) type Lines = mpsc::Receiver<Line>;

/// Starts reading `file`; `-` is stdin.
pub(in crate::cli) fn open(file: &Path) -> Result<Lines, Failure> {
    if file.as_os_str() == "-" {
        return spawn(|| Box::new(io::stdin().lock()));
    }
    let cannot = |error| Failure::usage(format!("cannot read {}: {error}", file.display()));
    let opened = File::open(file).map_err(cannot)?;
    if opened.metadata().map_err(cannot)?.is_dir() {
        return Err(Failure::usage(format!("{} is a folder", file.display())));
    }
    spawn(move || Box::new(BufReader::new(opened)))
}

fn spawn(open: impl FnOnce() -> Box<dyn BufRead> + Send + 'static) -> Result<Lines, Failure> {
    let (sender, lines) = mpsc::channel(AHEAD);
    thread::Builder::new()
        .name("lines".to_owned())
        .spawn(move || {
            let mut reader = open();
            let mut number = 0;
            // An error means that nobody wants more lines.
            while let Some(line) = next(&mut *reader, &mut number)
                && sender.blocking_send(line).is_ok()
            {}
        })
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    Ok(lines)
}

/// The next line that is not blank; `None` at the end, or after an error.
fn next(reader: &mut dyn BufRead, number: &mut u64) -> Option<Line> {
    /// Some editors begin a file with it.
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    loop {
        *number += 1;
        let mut line = Vec::new();
        let content = match take(reader, &mut line) {
            Ok(0) if *number > 1 && line.is_empty() => return None,
            Ok(0) => return None,
            Ok(_) if line.len() > MAX_LINE_BYTES => Err(LineError::TooLong),
            Ok(_) => {
                if *number == 1 && line.starts_with(BYTE_ORDER_MARK) {
                    line.drain(..BYTE_ORDER_MARK.len());
                }
                if line.trim_ascii().is_empty() {
                    continue;
                }
                Ok(line)
            }
            Err(error) => Err(LineError::Io(error.to_string())),
        };
        return Some(Line { number: *number, content });
    }
}

/// Reads up to and including the line's end; what is beyond the limit is read and dropped.
fn take(reader: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    let limit = MAX_LINE_BYTES as u64 + 1;
    let mut read = Read::take(&mut *reader, limit).read_until(b'\n', line)?;
    if line.len() > MAX_LINE_BYTES && !line.ends_with(b"\n") {
        read += reader.skip_until(b'\n')?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(u64, Result<String, LineError>)> {
        let (mut reader, mut number) = (text, 0);
        std::iter::from_fn(|| next(&mut reader, &mut number))
            .map(|line| (line.number, line.content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())))
            .collect()
    }

    #[test]
    fn lines_keep_their_numbers_and_blank_ones_are_left_out() {
        let lines = all(b"\xef\xbb\xbf{}\n\n  \r\n{\"a\":1}\r\nlast");
        let expected = [(1, "{}\n"), (4, "{\"a\":1}\r\n"), (5, "last")];
        assert_eq!(lines, expected.map(|(number, text)| (number, Ok(text.to_owned()))));
        assert_eq!(all(b""), []);
        assert_eq!(all(b"\n\n"), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_the_next_one_is_read() {
        let text = [vec![b'x'; 3 * MAX_LINE_BYTES], b"\nnext\n".to_vec()].concat();
        assert_eq!(all(&text), [(1, Err(LineError::TooLong)), (2, Ok("next\n".to_owned()))]);
        let exact = [vec![b'x'; MAX_LINE_BYTES - 1], b"\nnext".to_vec()].concat();
        assert_eq!(all(&exact).len(), 2);
        assert!(all(&exact)[0].1.is_ok());
    }
}
