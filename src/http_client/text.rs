//! Foreign text, made fit for one line of a message.

use crate::foreign::is_hostile;

/// `text` on one line, without control characters, cut to `max_chars` characters.
pub(crate) fn one_line(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || is_hostile(c)).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
            chars += 1;
        }
        for c in word.chars() {
            if chars >= max_chars {
                line.push('…');
                return line;
            }
            line.push(c);
            chars += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_its_line_and_within_its_limit() {
        assert_eq!(one_line("  two\r\n\twords\u{1b}[31m ", 80), "two words [31m");
        assert_eq!(one_line("fährt \u{202e}zurück", 80), "fährt zurück");
        assert_eq!(one_line("äöüß", 4), "äöüß");
        assert_eq!(one_line("äöüßx", 4), "äöüß…");
        assert_eq!(one_line("\0\n", 4), "");
    }
}
