//! nats-server from a local program.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Files, until_it_listens};
use crate::harness::{left_out, reaper};

pub struct Local {
    binary: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Local {
    pub fn start(binary: PathBuf, files: &Files) -> Self {
        let mut local = Self { binary, port: 0, child: None };
        local.run(files);
        local
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either may fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
            reaper::forget(child.id());
        }
    }

    pub fn run(&mut self, files: &Files) {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let dir = files.dir.path();
        let child = Command::new(&self.binary)
            .args(["--addr", "127.0.0.1", "--port", &port])
            .arg("--ports_file_dir")
            .arg(dir)
            .args(files.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        reaper::watch(child.id());
        let ports = dir.join(format!("nats-server_{}.ports", child.id()));
        // Owned before anything can fail, so that it is ended whatever happens.
        self.child = Some(child);
        // The file appears when the server listens.
        self.port = until_it_listens(files, || port_from(&ports));
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.kill();
    }
}

fn port_from(file: &Path) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}

/// `NATS_SERVER_BIN`, else the first nats-server in `PATH`. `None` is said, and is an error where leaving tests out would
/// go unnoticed.
pub fn find() -> Option<PathBuf> {
    let found = look_for();
    if found.is_none() {
        left_out::must_run("no nats-server in NATS_SERVER_BIN or PATH (deploy/nats-server.sh fetches one)");
    }
    found
}

/// `THROUGHLINE_TEST_OLDEST_NATS`: a program of the oldest version that is supported.
pub fn oldest() -> Option<PathBuf> {
    let found = std::env::var_os("THROUGHLINE_TEST_OLDEST_NATS").map(PathBuf::from);
    if found.is_none() {
        left_out::must_run("no THROUGHLINE_TEST_OLDEST_NATS (deploy/nats-server.sh --oldest fetches one)");
    }
    found
}

fn look_for() -> Option<PathBuf> {
    if let Some(binary) = std::env::var_os("NATS_SERVER_BIN") {
        return Some(binary.into());
    }
    let name = if cfg!(windows) { "nats-server.exe" } else { "nats-server" };
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}
