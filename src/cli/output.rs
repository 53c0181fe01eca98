//! Writing results to stdout and words to stderr. A reader that has gone away (`| head`) ends the command quietly.
//!
//! This is the last place that text of others passes, wherever a line was made of it: what would act on a terminal is escaped here,
//! but for the colours that commands choose for terminals.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write},
};

use serde::de::IgnoredAny;

use super::exit::{Exit, Failure};
use crate::foreign::{escaped_but_colours, escaped_json, escaped_lines};

/// Writes one line, or several, to stdout. JSON means the same on a terminal, where what is hostile in it is escaped, and is
/// left alone elsewhere.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    write(fit(text, io::stdout().is_terminal()).as_bytes(), b"\n")
}

/// Writes what others have written, and programs want as it is: to a terminal escaped, elsewhere every character.
pub(super) fn payload(text: &str) -> Result<(), Failure> {
    let shown = if io::stdout().is_terminal() { escaped_lines(text) } else { Cow::Borrowed(text) };
    write(shown.as_bytes(), b"\n")
}

/// Writes bytes to stdout as they are. To a terminal only what is ours, or what somebody asked for knowing that.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    write(bytes, b"")
}

fn write(bytes: &[u8], end: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.write_all(end));
    written.and_then(|()| out.flush()).map_err(|error| closed(&error))
}

fn fit(text: &str, is_terminal: bool) -> Cow<'_, str> {
    let is_json = text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_ok();
    match (is_json, is_terminal) {
        (true, true) => escaped_json(text),
        (true, false) => Cow::Borrowed(text),
        (false, true) => escaped_but_colours(text),
        (false, false) => escaped_lines(text),
    }
}

/// Asks on stderr, without a line break.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    let mut err = io::stderr().lock();
    let asked = write!(err, "{}", escaped_lines(question)).and_then(|()| err.flush());
    asked.map_err(|error| Failure::failed(format!("cannot ask: {error}")))
}

/// Writes a line to stderr; nobody can be told if that fails.
pub(super) fn note(text: &str) {
    let mut err = io::stderr().lock();
    let shown = if err.is_terminal() { escaped_but_colours(text) } else { escaped_lines(text) };
    let _ = writeln!(err, "{shown}");
}

pub(super) fn closed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure { exit: Exit::Done, message: String::new() };
    }
    Failure::failed(format!("cannot write to stdout: {error}"))
}

#[cfg(test)]
mod tests {
    use super::fit;

    #[test]
    fn text_of_others_acts_on_no_terminal_and_json_stays_json() {
        let (text, json) = ("w\u{1b}]0;x\u{7}\u{9b}2J\nnext", "{\"w\":\"\u{9b}\u{202e}\"}");
        assert_eq!(fit(text, true), "w\\u{1b}]0;x\\u{7}\\u{9b}2J\nnext");
        assert_eq!(fit(text, false), fit(text, true), "who pipes a page may look at it later");
        assert_eq!(fit("\u{1b}[31mred\u{1b}[0m", true), "\u{1b}[31mred\u{1b}[0m", "our colours");
        assert_eq!(fit("\u{1b}[31mred", false), "\\u{1b}[31mred", "which nobody chooses without a terminal");
        assert_eq!(fit(json, true), r#"{"w":"\u009b\u202e"}"#);
        assert_eq!(fit(json, false), json, "programs get what was stored");
        assert_eq!(fit("{no json \u{9b}", false), r"{no json \u{9b}");
    }
}
