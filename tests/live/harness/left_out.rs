//! What of the tests this machine cannot run. A test that returns early has passed for the runner, so it says so here, and
//! `tests/run.sh` shows all of it at the end.

use std::{fs::File, io::Write};

/// Says that something is left out. It goes to the file that `THROUGHLINE_TEST_LEFT_OUT` names too: what a test that passes
/// prints is not seen.
pub fn say(why: &str) {
    eprintln!("left out: {why}");
    let Some(file) = std::env::var_os("THROUGHLINE_TEST_LEFT_OUT") else { return };
    // Each test is a thread of its own name. One write, so that a line is never cut.
    let (thread, why) = (std::thread::current(), why.lines().collect::<Vec<_>>().join("; "));
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    let written = File::options()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    written.expect("THROUGHLINE_TEST_LEFT_OUT can be written to");
}

/// The same; an error where `CI` is set, since that machine has what it needs or is to be given it.
pub fn must_run(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "left out: {why}");
    say(why);
}
