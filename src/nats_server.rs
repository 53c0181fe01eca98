//! A private nats-server as a child process, for `throughline dev` and `bench`.

use std::{
    env,
    ffi::OsStr,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::leash::Leashed;
use tokio::{
    net::TcpStream,
    process::Command,
    time::{Instant, sleep, timeout},
};

/// Oldest server that has what we use: pinned consumers.
pub const MIN_VERSION: (u32, u32, u32) = (2, 11, 0);

/// How long the server may take to open its port: recovering a large store takes a while.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How long asking a binary for its version may take.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait between looks at files and ports.
const POLL: Duration = Duration::from_millis(10);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum NatsServerError {
    /// No binary that is new enough.
    #[error(
        "no nats-server >= {}.{}.{} found; run ./deploy/nats-server.sh and set NATS_SERVER_BIN to the path it prints",
        MIN_VERSION.0, MIN_VERSION.1, MIN_VERSION.2
    )]
    NotFound,
    /// It could not be started, or its files could not be written.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended, or did not open its port in time.
    #[error("nats-server did not start: {0}")]
    NotReady(String),
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> NatsServerError {
    move |source| NatsServerError::Io { doing, source }
}

/// How the server keeps its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncInterval {
    /// Every two minutes: survives a crash of the server, not of the machine.
    Default,
    /// Before each acknowledgement: survives a power cut.
    Always,
}

/// A running server. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct NatsServer {
    child: Leashed,
    address: SocketAddr,
    pid: u32,
}

impl NatsServer {
    /// Starts a server with JetStream under `dir`, on this loopback port; `None`: on a free one.
    pub async fn start(dir: &Path, sync: SyncInterval, port: Option<u16>) -> Result<Self, NatsServerError> {
        let binary = find().await?;
        std::fs::create_dir_all(dir).map_err(io_error("create the folder of the event store"))?;
        let ports = dir.join("ports");
        // A file of an earlier run would be taken for this one's.
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir_all(&ports).map_err(io_error("create the folder of the event store"))?;
        let config = dir.join("nats-server.conf");
        std::fs::write(&config, configuration(dir, &ports, sync, port))
            .map_err(io_error("write the configuration of nats-server"))?;

        let complaints = dir.join("nats-server.err");
        let stderr = std::fs::File::create(&complaints).map_err(io_error("create the log of nats-server"))?;
        let arguments = [OsStr::new("-c"), config.as_os_str()];
        let mut child = Leashed::spawn(binary.as_os_str(), &arguments, &[], Stdio::null(), stderr.into())
            .map_err(io_error("start nats-server"))?;
        let ready = async {
            loop {
                // The server writes its ports file when it listens.
                if let Some((pid, address)) = read_ports(&ports)
                    && TcpStream::connect(address).await.is_ok()
                {
                    return Ok((pid, address));
                }
                if let Some(status) = child.ended_with() {
                    let complaint = std::fs::read_to_string(&complaints).unwrap_or_default();
                    let complaint = complaint.trim();
                    return Err(NatsServerError::NotReady(format!("it ended with {status}; {complaint}")));
                }
                sleep(POLL).await;
            }
        };
        let (pid, address) = timeout(START_TIMEOUT, ready)
            .await
            .map_err(|_| NatsServerError::NotReady(format!("no open port within {START_TIMEOUT:?}")))??;
        Ok(Self { child, address, pid })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Completes when the server has ended by itself.
    pub async fn ended(&mut self) {
        self.child.ended().await;
    }

    /// Stops the server and waits for it, within a limit.
    pub async fn stop(self) {
        self.child.stop().await;
    }
}

fn configuration(dir: &Path, ports: &Path, sync: SyncInterval, port: Option<u16>) -> String {
    // The server takes -1 for any that is free.
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let sync = match sync {
        SyncInterval::Default => "",
        SyncInterval::Always => "\n  sync_interval: always",
    };
    // JSON strings are valid strings of the server's configuration language, whatever the path contains.
    let quoted = |path: &Path| serde_json::Value::from(path.to_string_lossy().as_ref()).to_string();
    format!(
        "# Written by throughline at each start.\n\
         listen: \"127.0.0.1:{port}\"\n\
         ports_file_dir: {}\n\
         log_file: {}\n\
         max_payload: 1MB\n\
         jetstream {{\n  store_dir: {}{sync}\n}}\n",
        quoted(ports),
        quoted(&dir.join("nats-server.log")),
        quoted(&dir.join("jetstream")),
    )
}

/// The server writes `nats-server_<pid>.ports`: `{"nats": ["nats://127.0.0.1:41253"], ...}`.
fn read_ports(dir: &Path) -> Option<(u32, SocketAddr)> {
    let file = std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "ports"))?;
    let pid = file.file_stem()?.to_str()?.rsplit('_').next()?.parse().ok()?;
    let ports: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
    let address = ports["nats"].get(0)?.as_str()?.strip_prefix("nats://")?.parse().ok()?;
    Some((pid, address))
}

/// The server named by `NATS_SERVER_BIN`, else the first on the path that is new enough, else the one that
/// `deploy/nats-server.sh` fetched.
async fn find() -> Result<PathBuf, NatsServerError> {
    if let Some(named) = env::var_os("NATS_SERVER_BIN").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/local/bin", "/usr/sbin"].map(PathBuf::from));
    // One folder for each version and platform.
    let cached = cache().and_then(|cache| std::fs::read_dir(cache).ok()).into_iter().flatten().flatten();
    let cached = cached.map(|entry| entry.path());
    let candidates = folders.chain(cached).map(|folder| folder.join("nats-server"));
    for candidate in candidates.filter(|candidate| candidate.is_file()) {
        match version(&candidate).await {
            Some(version) if version >= MIN_VERSION => return Ok(candidate),
            Some(version) => {
                tracing::info!(path = %candidate.display(), ?version, "nats-server is too old, looking on");
            }
            None => {}
        }
    }
    Err(NatsServerError::NotFound)
}

/// Where `deploy/nats-server.sh` keeps what it fetched.
fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("THROUGHLINE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("throughline")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/throughline")))
}

/// `nats-server: v2.15.1`
async fn version(binary: &Path) -> Option<(u32, u32, u32)> {
    let output = Command::new(binary).arg("--version").kill_on_drop(true).output();
    let output = timeout(VERSION_TIMEOUT, output).await.ok()?.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads the first `x.y.z` of a text; a suffix such as `-beta.1` is ignored.
pub fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut numbers = text.get(start..)?.split('.').map(|part| {
        let digits = part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse::<u32>().ok()
    });
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// How long ago something started; for "ready after" messages.
pub(crate) fn since(started: Instant) -> String {
    format!("{:.1} s", started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_print() {
        assert_eq!(parse_version("nats-server: v2.15.1\n"), Some((2, 15, 1)));
        assert_eq!(parse_version("2.12.0-beta.1"), Some((2, 12, 0)));
        assert_eq!(parse_version("nats-server: dev"), None);
    }

    #[test]
    fn paths_with_quotes_and_blanks_stand_in_the_configuration_as_they_are() {
        let dir = Path::new("/tmp of \"me\"/data");
        let text = configuration(dir, &dir.join("ports"), SyncInterval::Always, Some(4222));
        assert!(text.contains(r#"store_dir: "/tmp of \"me\"/data/jetstream""#), "{text}");
        assert!(text.contains("sync_interval: always") && text.contains("listen: \"127.0.0.1:4222\""));
    }
}
