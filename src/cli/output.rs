//! Writing results to stdout. A reader that has gone away (`| head`) ends the command quietly.

use std::io::{self, Write};

use super::exit::{Exit, Failure};

/// Writes one line to stdout.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| closed(&error))
}

/// Writes bytes to stdout as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| closed(&error))
}

/// Asks on stderr, without a line break.
pub(super) fn ask(question: &str) -> Result<(), Failure> {
    let mut err = io::stderr().lock();
    let asked = write!(err, "{question}").and_then(|()| err.flush());
    asked.map_err(|error| Failure::failed(format!("cannot ask: {error}")))
}

/// Writes a line to stderr; nobody can be told if that fails.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub(super) fn closed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure { exit: Exit::Done, message: String::new() };
    }
    Failure::failed(format!("cannot write to stdout: {error}"))
}
