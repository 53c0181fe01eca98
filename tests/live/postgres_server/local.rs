//! PostgreSQL from local programs.

use std::{
    fs::File,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{AUTHENTICATION, PASSWORD, USER};
use crate::harness::reaper;

/// The user that root starts it as: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

pub struct Local {
    programs: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    /// These tests run as root.
    root: bool,
    child: Option<Child>,
}

impl Local {
    /// Says why if it cannot.
    pub fn start(port: u16, settings: &[&str]) -> Result<Self, String> {
        let programs = programs()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().metadata().expect("its owner").uid() == 0;
        if root {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut local = Self { programs, dir, port, settings, root, child: None };
        local.create()?;
        local.run();
        Ok(local)
    }

    fn create(&self) -> Result<(), String> {
        let password = self.dir.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a file");
        std::fs::set_permissions(&password, PermissionsExt::from_mode(0o644)).expect("its permissions");
        let output = self
            .command("initdb")
            .args([
                "--username",
                USER,
                "--auth",
                AUTHENTICATION,
                "--encoding=UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .arg("--pwfile")
            .arg(password)
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .map_err(|error| format!("initdb does not start: {error}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or_else(|| format!("initdb failed: {complaint}"))
    }

    pub fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let errors = log.try_clone().expect("a log file");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().expect("postgres starts");
        reaper::watch(child.id());
        self.child = Some(child);
    }

    pub fn stop(&mut self) {
        // A fast shutdown.
        self.signal("INT", false);
        self.wait();
    }

    pub fn kill(&mut self) {
        // Its children notice.
        self.signal("KILL", false);
        self.wait();
    }

    pub fn pause(&self) {
        self.signal("STOP", true);
    }

    pub fn resume(&self) {
        self.signal("CONT", true);
    }

    fn wait(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
            reaper::forget(child.id());
        }
    }

    /// Sends a signal to the server, and to its children if asked: each is a process group of its own.
    fn signal(&self, signal: &str, children: bool) {
        let Some(child) = &self.child else { return };
        let mut pids = vec![child.id().to_string()];
        if children {
            let output = Command::new("pgrep").args(["-P", &pids[0]]).output().expect("pgrep starts");
            pids.extend(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned));
        }
        // A child may have ended in the meantime.
        let _ = Command::new("kill").args(["-s", signal, "--"]).args(&pids).status().expect("kill starts");
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir(self.dir.path());
        if self.root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder that `tests/run.sh` found, else the one that `postgres.sh` finds or fetches.
fn programs() -> Result<PathBuf, String> {
    if let Some(programs) = std::env::var_os("POSTGRES_BIN_DIR") {
        return Ok(programs.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/postgres.sh");
    let found = Command::new(script).stderr(Stdio::inherit()).output();
    match found {
        Ok(found) if found.status.success() => {
            Ok(String::from_utf8_lossy(&found.stdout).trim_end().to_owned().into())
        }
        _ => Err("no PostgreSQL (tests/live/postgres.sh finds or fetches one)".to_owned()),
    }
}
