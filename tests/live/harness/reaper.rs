//! No process outlives the tests, however they end: passed, panicked, interrupted or killed.
//!
//! A small shell holds the read end of a pipe. When the test process is gone, the pipe closes, and the shell ends
//! what is still on its list. It is told before and after, by process id, so it ends only what these tests started.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{ChildStdin, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

const SCRIPT: &str = r#"
pids=
while read -r sign pid; do
  case $sign in
    +) pids="$pids $pid" ;;
    -) left=; for p in $pids; do [ "$p" = "$pid" ] || left="$left $p"; done; pids=$left ;;
  esac
done
for pid in $pids; do kill -9 "$pid"; done
"#;

static REAPER: OnceLock<Mutex<ChildStdin>> = OnceLock::new();

fn tell(sign: char, pid: u32) {
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
    reaper.write_all(format!("{sign} {pid}\n").as_bytes()).expect("the reaper listens");
}

/// From now on this process ends with the tests.
pub fn watch(pid: u32) {
    tell('+', pid);
}

/// The process has ended and its id may be somebody else's.
pub fn forget(pid: u32) {
    tell('-', pid);
}
