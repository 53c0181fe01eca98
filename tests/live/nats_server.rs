//! A private nats-server for one test: own port, own store, gone when the test is. It runs in a container where a
//! Docker engine answers, else from a local program; the tests do not notice.
#![allow(clippy::expect_used, unreachable_pub, dead_code)]

mod contained;
mod local;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use self::{contained::InContainer, local::Local};
use crate::containers::{self, Kind};
pub use local::find;

/// How long a server may take to listen. It needs 20 ms on an idle machine, and 300 in a container.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between looks at whether it listens.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running, or stopped, nats-server with `JetStream` on disk.
pub struct NatsServer {
    // Goes before its files do.
    way: Way,
    files: Files,
}

enum Way {
    Container(InContainer),
    Local(Local),
}

/// What a server reads and writes: folders of this machine, in a container under the same paths.
struct Files {
    dir: tempfile::TempDir,
    store: PathBuf,
    arguments: Vec<String>,
}

impl Files {
    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// What every server is told but where to listen.
    fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let told = ["--jetstream".to_owned(), "--store_dir".to_owned(), path(&self.store)];
        let log = ["--log".to_owned(), path(&self.log())];
        told.into_iter().chain(log).chain(self.arguments.iter().cloned()).collect()
    }
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

    /// The same, with this configuration.
    pub fn start_configured(configuration: &str) -> Option<Self> {
        Self::start_in(Self::configured(configuration), true)
    }

    /// The same, with its store in this folder instead of one of its own.
    pub fn start_on(store: Option<&Path>, extra: &[&str]) -> Option<Self> {
        Self::start_in(Self::files(store, extra), true)
    }

    /// A local program of the oldest supported version, with this configuration; `None` where there is none.
    pub fn start_oldest_configured(configuration: &str) -> Option<Self> {
        let files = Self::configured(configuration);
        let local = Local::start(local::oldest()?, &files);
        Some(Self { way: Way::Local(local), files })
    }

    /// A local program in any case: what is measured is the server, not a container's way to it.
    pub fn start_local() -> Option<Self> {
        Self::start_in(Self::files(None, &[]), false)
    }

    /// The same, with this configuration, which may name files of this machine.
    pub fn start_local_configured(configuration: &str) -> Option<Self> {
        Self::start_in(Self::configured(configuration), false)
    }

    fn configured(configuration: &str) -> Files {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("server.conf");
        std::fs::write(&file, configuration).expect("a file");
        let arguments = ["--config", file.to_str().expect("a path in UTF-8")].map(str::to_owned);
        Files { store: dir.path().join("store"), arguments: arguments.into(), dir }
    }

    fn files(store: Option<&Path>, extra: &[&str]) -> Files {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store.map_or_else(|| dir.path().join("store"), Path::to_owned);
        Files { dir, store, arguments: extra.iter().map(|&argument| argument.to_owned()).collect() }
    }

    fn start_in(files: Files, may_be_contained: bool) -> Option<Self> {
        if let Some(image) = Kind::Nats.image().filter(|_| may_be_contained) {
            match InContainer::start(image, &files) {
                Ok(container) => return Some(Self { way: Way::Container(container), files }),
                Err(why) => containers::fall_back(&why),
            }
        }
        let local = Local::start(find()?, &files);
        Some(Self { way: Way::Local(local), files })
    }

    /// Where it listens; the same after a restart.
    pub fn url(&self) -> String {
        let port = match &self.way {
            Way::Container(container) => container.port(),
            Way::Local(local) => local.port(),
        };
        format!("nats://127.0.0.1:{port}")
    }

    /// Where its store and its log are.
    pub fn dir(&self) -> &Path {
        self.files.dir.path()
    }

    /// The process of a local server, while it runs.
    pub fn pid(&self) -> Option<u32> {
        match &self.way {
            Way::Container(_) => None,
            Way::Local(local) => local.pid(),
        }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        match &mut self.way {
            Way::Container(container) => container.kill(),
            Way::Local(local) => local.kill(),
        }
    }

    /// Starts it again on the same port with the same store.
    pub fn restart(&mut self) {
        self.kill();
        match &mut self.way {
            Way::Container(container) => container.start_again(&self.files),
            Way::Local(local) => local.run(&self.files),
        }
    }
}

/// Looks until the server listens.
#[expect(clippy::disallowed_methods, reason = "waits for another process, with or without a runtime")]
fn until_it_listens<T>(files: &Files, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        let log = || std::fs::read_to_string(files.log()).unwrap_or_default();
        assert!(Instant::now() < deadline, "nats-server does not listen:\n{}", log());
        std::thread::sleep(LOOK_AGAIN);
    }
}
