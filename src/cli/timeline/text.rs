//! Text from elsewhere, made fit for a terminal.

use crate::foreign::{escaped_lines, is_hostile};

/// The text on one line of at most `width` characters. Characters that would move the cursor, change colours or
/// turn the direction of writing are escaped; a cut is marked with an ellipsis.
pub(in crate::cli) fn clean(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let shown: String = if is_hostile(c) { c.escape_default().collect() } else { c.into() };
        let chars = shown.chars().count();
        if used + chars > width {
            while used >= width.max(1) {
                out.pop();
                used -= 1;
            }
            out.push('…');
            return out;
        }
        used += chars;
        out.push_str(&shown);
    }
    out
}

/// As [`clean`], keeping line breaks and tabs, and the whole length.
pub(in crate::cli) fn clean_lines(text: &str) -> String {
    escaped_lines(text).into_owned()
}

/// In quotation marks, which are not escaped inside: it is for people.
pub(super) fn quoted(text: &str, width: usize) -> String {
    format!("\"{}\"", clean(text, width.saturating_sub(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_a_terminal_is_shown_instead() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e", 80), r"a\u{1b}[31mb\r\nc\u{9b}d\u{202e}e");
        assert_eq!(clean_lines("a\n\tb\u{7}\r"), "a\n\tb\\u{7}\\r");
        assert_eq!(clean("naïve 日本 👩‍👩‍👧", 80), "naïve 日本 👩‍👩‍👧");
    }

    #[test]
    fn a_cut_is_marked_and_never_longer_than_asked() {
        assert_eq!(clean("abcdef", 6), "abcdef");
        assert_eq!(clean("abcdefg", 6), "abcde…");
        assert_eq!(clean("\u{1b}\u{1b}", 8), r"\u{1b}…");
        for width in 1..12 {
            assert!(clean("a\u{1b}bcdefghijkl", width).chars().count() <= width, "{width}");
        }
    }
}
