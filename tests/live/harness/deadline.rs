//! A test that hangs is named. Without this the run would go on until its own time limit, and nobody would know which it was.

use std::{
    collections::HashMap,
    env,
    io::{self, Write},
    process,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use tokio::time::Instant;

/// No test takes so long, however busy the machine is. (Chaos whose length somebody chose may.)
const LIMIT: Duration = Duration::from_mins(10);
/// Set by `tests/live/chaos.sh --minutes`.
const CHOSEN_LENGTH: &str = "THROUGHLINE_CHAOS_TURNS";
const LOOK: Duration = Duration::from_secs(5);

/// The threads of the tests that run, with their names, which are those of the tests, and when they were first seen.
static TESTS: LazyLock<Mutex<HashMap<ThreadId, (String, Instant)>>> = LazyLock::new(|| {
    thread::spawn(look);
    Mutex::default()
});

thread_local! {
    static THIS: Watched = Watched::begin();
}

/// The test of this thread ends within [`LIMIT`], or the whole run does and says which it was.
pub fn begin() {
    if env::var_os(CHOSEN_LENGTH).is_none() {
        THIS.with(|_| ());
    }
}

/// Ends with its thread, and so with the test.
struct Watched(ThreadId);

impl Watched {
    fn begin() -> Self {
        let thread = thread::current();
        let name = thread.name().unwrap_or("a test").to_owned();
        // With --test-threads=1 all tests run in the main thread, which is none of them.
        if name != "main" {
            tests().insert(thread.id(), (name, Instant::now()));
        }
        Self(thread.id())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        tests().remove(&self.0);
    }
}

fn tests() -> MutexGuard<'static, HashMap<ThreadId, (String, Instant)>> {
    TESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread without tasks, and the reaper ends what the tests started"
)]
fn look() {
    loop {
        thread::sleep(LOOK);
        let late: Vec<String> = tests()
            .values()
            .filter(|(_, since)| since.elapsed() > LIMIT)
            .map(|(name, _)| name.clone())
            .collect();
        if !late.is_empty() {
            // Not by a macro: what these print is kept for the report of a test.
            let _ = writeln!(
                io::stderr(),
                "\nstill running after {LIMIT:?}, so the run ends here: {}",
                late.join(", ")
            );
            process::exit(1);
        }
    }
}
