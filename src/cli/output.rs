//! Writing results to stdout. A reader that has gone away (`| head`) ends the command quietly.

use std::io::{self, Write};

use super::exit::{Exit, Failure};

/// Writes one line to stdout.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| closed(&error))
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
