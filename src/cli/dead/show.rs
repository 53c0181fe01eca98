//! One dead letter in full.

use std::fmt::Write;

use super::table::unknown;
use crate::{
    cli::timeline::{clean, clean_lines},
    dead::Letter,
};

/// Longest value shown on a line, in characters; `--json` has all of it.
const MAX_VALUE_CHARS: usize = 2_000;
/// Longest piece of a body shown, in characters: about a screen.
const MAX_BODY_CHARS: usize = 2_000;

pub(super) fn render(letter: &Letter) -> String {
    let mut text = String::new();
    let stage = letter.stage.map_or_else(unknown, |stage| stage.to_string());
    let code = letter.code.map_or_else(unknown, |code| code.to_string());
    let number = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
    for (name, value) in [
        ("letter", letter.id.to_string()),
        ("buried", letter.at.to_string()),
        ("stage", stage),
        ("code", code),
        ("error", letter.error.clone()),
        ("attempts", number(letter.attempts.map(u64::from))),
        ("workflow", letter.workflow().map_or_else(unknown, |workflow| workflow.to_string())),
        ("subject", or_unknown(&letter.subject)),
        ("stream", or_unknown(&letter.stream)),
        ("sequence", number(letter.sequence)),
        ("consumer", or_unknown(&letter.consumer)),
        ("worker", or_unknown(&letter.worker)),
    ] {
        line(&mut text, &format!("{name:<9}"), &value);
    }
    text.push_str("\nheaders\n");
    if letter.headers.is_empty() {
        text.push_str("  (none)\n");
    }
    for (name, value) in &letter.headers {
        line(&mut text, &format!("  {}:", clean(name, MAX_VALUE_CHARS)), value);
    }
    // Writing to a string does not fail.
    let _ = match letter.cut_from {
        Some(whole) => write!(
            text,
            "\nbody, the first {} of {whole} bytes: there was no room for more\n",
            letter.body.len()
        ),
        None => write!(text, "\nbody, {} bytes\n", letter.body.len()),
    };
    match std::str::from_utf8(&letter.body) {
        Ok("") => text.push_str("  (empty)"),
        Ok(body) => text.push_str(&beginning(body)),
        Err(_) => text.push_str("  (not UTF-8; --body prints it as it is)"),
    }
    text
}

/// As much of a body as a person looks at.
fn beginning(body: &str) -> String {
    match body.char_indices().nth(MAX_BODY_CHARS) {
        None => clean_lines(body),
        Some((end, _)) => {
            let (shown, rest) = body.split_at(end);
            format!("{}\n  (and {} more bytes; --body prints all of it)", clean_lines(shown), rest.len())
        }
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push(' ');
    text.push_str(&clean(value, MAX_VALUE_CHARS));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_shown_by_its_beginning() {
        assert_eq!(beginning("short"), "short");
        let shown = beginning(&"\u{fc}".repeat(MAX_BODY_CHARS + 10));
        assert!(shown.ends_with("(and 20 more bytes; --body prints all of it)"), "{shown}");
        assert!(shown.chars().count() < MAX_BODY_CHARS + 100);
    }
}
