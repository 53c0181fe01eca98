//! Child processes that cannot outlive us, however we end.
//!
//! The child is started by a small shell that holds the read end of a pipe. When our end closes, because we stopped
//! the child or because we were killed, the shell stops it.

use std::{ffi::OsStr, io, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// How long a child may take to stop by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs "$@" until it ends or our stdin closes. The child gets its own stdin, so that it cannot read ours.
const KEEPER: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
( exec >/dev/null 2>&1; cat <&3; kill -TERM $child ) &
keeper=$!
exec 3<&-
wait $child
code=$?
kill $keeper 2>/dev/null
exit $code
"#;

/// A child on a leash. Dropping it stops it, without waiting.
#[derive(Debug)]
pub(crate) struct Leashed {
    keeper: Child,
    /// The keeper stops the child when this closes. Kept apart from `keeper`, whose `wait` closes its own.
    leash: Option<ChildStdin>,
}

impl Leashed {
    /// Starts `program`; its stdout is ours to read or discarded, its stderr goes where `stderr` says.
    pub(crate) fn spawn(
        program: &OsStr,
        arguments: &[&OsStr],
        environment: &[(&str, &str)],
        stdout: Stdio,
        stderr: Stdio,
    ) -> io::Result<Self> {
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            // Ctrl-C in the terminal is for us; the child goes when we say so.
            .process_group(0)
            .spawn()?;
        let leash = keeper.stdin.take();
        Ok(Self { keeper, leash })
    }

    /// The child's stdout, if it was piped and not taken before.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.keeper.stdout.take()
    }

    /// How the child ended, if it has.
    pub(crate) fn ended_with(&mut self) -> Option<String> {
        self.keeper.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Completes when the child has ended.
    pub(crate) async fn ended(&mut self) {
        let _ = self.keeper.wait().await;
    }

    /// Process id of the child, where the system tells (Linux).
    pub(crate) fn pid(&self) -> Option<u32> {
        let keeper = self.keeper.id()?;
        let children = std::fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
        let shell = std::fs::read_link(format!("/proc/{keeper}/exe")).ok()?;
        // The other child is the subshell that waits for us.
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &u32| {
            std::fs::read_link(PathBuf::from(format!("/proc/{pid}/exe"))).is_ok_and(|exe| exe != shell)
        })
    }

    /// Stops the child and waits for it, within a limit.
    pub(crate) async fn stop(mut self) {
        drop(self.leash.take());
        if timeout(STOP_TIMEOUT, self.keeper.wait()).await.is_err() {
            tracing::warn!(limit = ?STOP_TIMEOUT, "a child process does not stop, killing its keeper");
            let _ = self.keeper.kill().await;
        }
    }
}
