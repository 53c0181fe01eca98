//! The real program, as a user runs it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{LOOK_AGAIN, reaper};

/// Variables that would let the machine's surroundings into a test.
const FOREIGN: [&str; 10] = [
    "NATS_URL",
    "DATABASE_URL",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "RUST_LOG",
];
/// Lines of a log that a failed test shows.
const LOG_LINES: usize = 60;

/// `throughline`, without what the machine's environment would tell it. `THROUGHLINE_TEST_PROGRAM` names another build of it, for
/// measurements.
pub fn throughline() -> Command {
    let own = env!("CARGO_BIN_EXE_throughline");
    let mut command =
        Command::new(std::env::var_os("THROUGHLINE_TEST_PROGRAM").unwrap_or_else(|| own.into()));
    for (name, _) in std::env::vars_os() {
        if FOREIGN.iter().any(|&foreign| name == *foreign)
            || name.to_string_lossy().starts_with("THROUGHLINE_")
        {
            command.env_remove(name);
        }
    }
    command
}

/// A running process; ended, at once, when dropped.
pub struct Program {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts `command` in `dir`; its output goes to files there.
    pub fn start(name: &str, dir: &Path, command: &mut Command) -> Self {
        Self::start_reading(name, dir, command, Stdio::null())
    }

    /// The same, with something to read on its standard input.
    pub fn start_reading(name: &str, dir: &Path, command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        let file = |path: &Path| File::create(path).expect("an output file");
        // A database that nobody configured is this test's.
        if !command.get_envs().any(|(name, _)| name == "XDG_DATA_HOME") {
            command.env("XDG_DATA_HOME", dir.join("data"));
        }
        let child = command
            .current_dir(dir)
            .stdin(stdin)
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn()
            .expect("it starts");
        reaper::watch(child.id());
        Self { name: name.to_owned(), child, out, err, ended: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    /// Waits until a worker says that it is ready.
    pub async fn until_ready(&self) {
        super::eventually("the worker is ready", async || {
            self.stderr().contains("worker ready").then_some(())
        })
        .await;
    }

    pub fn is_running(&mut self) -> bool {
        self.look().is_none()
    }

    fn look(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("its state");
            if self.ended.is_some() {
                reaper::forget(self.pid());
            }
        }
        self.ended
    }

    /// Waits for its end, for `limit` at most.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if let Some(status) = self.look() {
                return status;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} still runs after {limit:?}:\n{}",
                self.name,
                self.stderr()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, signal: &str) {
        send(signal, self.pid());
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if self.look().is_none() {
            // May fail only if it is gone already.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
            reaper::forget(self.pid());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.stderr();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines.iter().skip(lines.len().saturating_sub(LOG_LINES));
            eprintln!("--- {} (last lines)", self.name);
            tail.for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Sends a signal to a process that a test started.
pub fn send(signal: &str, pid: u32) {
    let status = Command::new("/bin/sh").args(["-c", &format!("kill -{signal} {pid}")]).status();
    assert!(status.expect("a shell").success(), "cannot send {signal} to {pid}");
}

/// Whether a process exists.
pub fn exists(pid: u32) -> bool {
    let mut look = Command::new("/bin/sh");
    look.args(["-c", &format!("kill -0 {pid}")]).stderr(Stdio::null());
    look.status().expect("a shell").success()
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
