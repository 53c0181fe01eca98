//! A private nats-server for one test: own port, own store, gone when the test is.
#![allow(clippy::expect_used, clippy::print_stderr, unreachable_pub, dead_code)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take to listen. It needs 40 ms on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between looks at whether it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running, or stopped, nats-server with `JetStream` on disk.
pub struct NatsServer {
    binary: PathBuf,
    dir: tempfile::TempDir,
    store: PathBuf,
    port: u16,
    child: Option<Child>,
    extra: Vec<String>,
}

impl NatsServer {
    /// Starts one, or says why this machine cannot: then `None`, unless `CI` is set, where leaving tests out would
    /// go unnoticed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with further arguments for the server.
    pub fn start_with(extra: &[&str]) -> Option<Self> {
        Self::start_on(None, extra)
    }

    /// The same, with its store in this folder instead of one of its own.
    pub fn start_on(store: Option<&Path>, extra: &[&str]) -> Option<Self> {
        let binary = find()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let extra = extra.iter().map(|&argument| argument.to_owned()).collect();
        let store = store.map_or_else(|| dir.path().join("store"), Path::to_owned);
        let mut server = Self { binary, dir, store, port: 0, child: None, extra };
        server.run();
        Some(server)
    }

    /// Where it listens; the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where its store and its log are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either may fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port with the same store.
    pub fn restart(&mut self) {
        self.kill();
        self.run();
    }

    #[expect(clippy::disallowed_methods, reason = "waits for another process, with or without a runtime")]
    fn run(&mut self) {
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let log = self.dir.path().join("server.log");
        let child = Command::new(&self.binary)
            .args(["--addr", "127.0.0.1", "--port", &port, "--jetstream"])
            .arg("--store_dir")
            .arg(&self.store)
            .arg("--ports_file_dir")
            .arg(self.dir.path())
            .arg("--log")
            .arg(&log)
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        let ports = self.dir.path().join(format!("nats-server_{}.ports", child.id()));
        // Owned before anything can fail, so that it is ended whatever happens.
        self.child = Some(child);
        let deadline = Instant::now() + START_LIMIT;
        // The file appears when the server listens.
        while Self::port_from(&ports).is_none() {
            assert!(Instant::now() < deadline, "nats-server does not listen:\n{}", read(&log));
            std::thread::sleep(LOOK_AGAIN);
        }
        self.port = Self::port_from(&ports).expect("just seen");
    }

    fn port_from(file: &Path) -> Option<u16> {
        let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `NATS_SERVER_BIN`, else the first nats-server in `PATH`. `None` is said, and is an error where leaving tests out would
/// go unnoticed.
pub fn find() -> Option<PathBuf> {
    let found = look_for();
    if found.is_none() {
        let why = "left out: no nats-server in NATS_SERVER_BIN or PATH (deploy/nats-server.sh fetches one)";
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("{why}");
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
