//! Text from elsewhere, made fit for the places where it is shown: terminals, logs, messages.

use std::{borrow::Cow, fmt::Write};

/// Control characters (C0, DEL, C1), line separators, and the invisible ones that reorder or hide what stands around them.
pub(crate) fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{feff}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// What is hostile in a text, escaped as in Rust: `\n`, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, is_hostile, |c, out| out.extend(c.escape_default()))
}

/// The same, of a text that may have lines and tabs.
pub(crate) fn escaped_lines(text: &str) -> Cow<'_, str> {
    replaced(text, |c| is_hostile(c) && !is_layout(c), |c, out| out.extend(c.escape_default()))
}

/// The same, of a text that has colours of ours as well: sequences that choose colours stay (ECMA-48, 8.3.117), no others.
pub(crate) fn escaped_but_colours(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1b}') {
        return escaped_lines(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        out.push_str(&escaped_lines(before));
        let stays = colour(after).unwrap_or_default();
        out.push_str(if stays > 0 { "\u{1b}" } else { r"\u{1b}" });
        out.push_str(&after[..stays]);
        rest = &after[stays..];
    }
    out.push_str(&escaped_lines(rest));
    Cow::Owned(out)
}

/// JSON that means the same, with what is hostile in its texts escaped as JSON does. Between its tokens there may be line
/// breaks and tabs.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    replaced(
        json,
        |c| is_hostile(c) && !is_layout(c),
        |c, out| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        },
    )
}

fn is_layout(c: char) -> bool {
    matches!(c, '\n' | '\t')
}

/// The length of what stands behind the ESC of a sequence that chooses colours.
fn colour(after: &str) -> Option<usize> {
    let parameters = after.strip_prefix('[')?;
    let length = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[length..].starts_with('m').then_some(length + 2)
}

fn replaced(text: &str, is_bad: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_bad(c) {
            write(c, &mut out);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOSTILE: &str = "a\u{1b}]52;c;eA==\u{7}\r\n\u{9b}31m\u{202e}\u{2028}\u{7f}\u{e0041}z";

    #[test]
    fn nothing_that_acts_is_left() {
        let one_line = escaped(HOSTILE);
        assert!(!one_line.contains(is_hostile), "{one_line}");
        assert_eq!(one_line, r"a\u{1b}]52;c;eA==\u{7}\r\n\u{9b}31m\u{202e}\u{2028}\u{7f}\u{e0041}z");
        assert_eq!(escaped_lines("a\n\tb\r"), "a\n\tb\\r");
        assert_eq!(escaped("naïve 日本 👩‍👩‍👧 نص"), "naïve 日本 👩‍👩‍👧 نص");
    }

    #[test]
    fn colours_stay_and_no_other_sequence() {
        let text = "\u{1b}[1;31mred\u{1b}[0m\n\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[5A\u{1b}[";
        assert_eq!(
            escaped_but_colours(text),
            "\u{1b}[1;31mred\u{1b}[0m\n\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{1b}[5A\\u{1b}["
        );
    }

    #[test]
    fn json_means_the_same() {
        let value = serde_json::json!({ HOSTILE: [HOSTILE, 1] });
        let shown = escaped_json(&value.to_string()).into_owned();
        assert!(!shown.contains(is_hostile), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert_eq!(escaped_json("{\n\t\"a\": 1\n}"), "{\n\t\"a\": 1\n}");
    }
}
