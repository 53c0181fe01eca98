//! The terminal on stdout: how large it is, and how something is drawn over what was there.

use std::io::{self, IsTerminal};

/// Moves to the upper left corner.
const HOME: &str = "\u{1b}[H";
/// Clears what is left of a line.
const CLEAR_LINE: &str = "\u{1b}[K";
/// Clears what is below.
const CLEAR_BELOW: &str = "\u{1b}[J";

/// How many lines it has, if it is one.
pub(super) fn rows() -> Option<usize> {
    size().map(|(_, rows)| rows)
}

/// How many columns it has, if it is one.
pub(super) fn columns() -> Option<usize> {
    size().map(|(columns, _)| columns)
}

fn size() -> Option<(usize, usize)> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    // Some terminals say that they have no size.
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// What to write so that this is seen: in the place of what was drawn before, or as a block of its own. Line by line
/// over the old, so that nothing flickers.
pub(super) fn drawing(head: &str, body: &str, is_terminal: bool) -> String {
    if !is_terminal {
        return format!("{head}\n{body}\n\n");
    }
    let mut drawing = HOME.to_owned();
    for line in std::iter::once(head).chain(body.lines()) {
        drawing.push_str(line);
        drawing.push_str(CLEAR_LINE);
        drawing.push_str("\r\n");
    }
    drawing.push_str(CLEAR_BELOW);
    drawing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_drawn_over_and_a_file_gets_blocks() {
        assert_eq!(drawing("now", "a\nb", false), "now\na\nb\n\n");
        assert_eq!(drawing("now", "a\nb", true), "\u{1b}[Hnow\u{1b}[K\r\na\u{1b}[K\r\nb\u{1b}[K\r\n\u{1b}[J");
    }
}
