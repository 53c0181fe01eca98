//! No process and no container outlives the tests, however they end: passed, panicked, interrupted or killed.
//!
//! A small shell holds the read end of a pipe. When the test process is gone, the pipe closes, and the shell ends
//! what is still on its list. It is told before and after, by process id, so it ends only what these tests started.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

use super::deadline;

const SCRIPT: &str = r#"
pids= containers=
without() { left=; for word in $1; do [ "$word" = "$2" ] || left="$left $word"; done; printf '%s' "$left"; }
while read -r sign what; do
  case $sign in
    +) pids="$pids $what" ;;
    -) pids="$(without "$pids" "$what")" ;;
    c+) containers="$containers $what" ;;
    c-) containers="$(without "$containers" "$what")" ;;
  esac
done
for pid in $pids; do kill -9 "$pid"; done
[ -z "$containers" ] || docker rm --force --volumes $containers
"#;

static REAPER: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

fn tell(sign: &str, what: impl std::fmt::Display) {
    let reaper = REAPER.get_or_init(|| {
        #[expect(clippy::zombie_processes, reason = "it outlives this process by design")]
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt at the terminal is for the tests; the shell still has work then.
            .process_group(0)
            .spawn()
            .expect("a shell");
        Mutex::new(shell.stdin.take().expect("piped"))
    });
    let mut reaper = reaper.lock().unwrap_or_else(PoisonError::into_inner);
    // One write, so that a line is never cut.
    reaper.write_all(format!("{sign} {what}\n").as_bytes()).expect("the reaper listens");
}

/// From now on this process ends with the tests.
pub fn watch(pid: u32) {
    deadline::begin();
    tell("+", pid);
}

/// The process has ended and its id may be somebody else's.
pub fn forget(pid: u32) {
    tell("-", pid);
}

/// From now on this container is removed when the tests end.
pub fn watch_container(id: &str) {
    tell("c+", id);
}

/// The container has been removed.
pub fn forget_container(id: &str) {
    tell("c-", id);
}
