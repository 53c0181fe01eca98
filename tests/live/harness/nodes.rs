//! Three nats-servers that are one cluster, with the configuration, the users and the certificates that are shipped. Always
//! local processes: tests put each in a network namespace of its own, and take their signals and addresses as they are.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use async_nats::{ConnectOptions, jetstream};
use serde_json::Value;

use super::{eventually, process, reaper};
use crate::nats_server;

/// How many there are.
pub const NODES: usize = 3;

/// Where a node listens: for clients, for its monitoring, and for the other nodes.
#[derive(Debug, Clone)]
pub struct Place {
    host: String,
    clients: u16,
    monitoring: u16,
    routes: u16,
}

impl Place {
    /// On loopback, at ports that are free now.
    fn on_loopback() -> Self {
        let free: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let port = |at: usize| free[at].local_addr().expect("bound").port();
        Self { host: "127.0.0.1".to_owned(), clients: port(0), monitoring: port(1), routes: port(2) }
    }

    /// At an address of its own, at the usual ports.
    pub fn at(host: &str) -> Self {
        Self { host: host.to_owned(), clients: 4222, monitoring: 8222, routes: 6222 }
    }

    pub fn url(&self) -> String {
        format!("tls://{}:{}", self.host, self.clients)
    }
}

struct Node {
    place: Place,
    dir: PathBuf,
    child: Option<Child>,
}

/// The cluster; gone when dropped.
pub struct Nodes {
    binary: PathBuf,
    all: Vec<Node>,
    /// Words before the server's, for each node: where to run it.
    launchers: Vec<Vec<String>>,
    dir: tempfile::TempDir,
}

impl Nodes {
    /// Starts three on loopback, or says why this machine cannot.
    pub async fn start() -> Option<Self> {
        let mut nodes = Self::on_loopback()?;
        for at in 0..NODES {
            nodes.run(at);
        }
        nodes.until_healthy().await;
        Some(nodes)
    }

    /// Three on loopback, none of which runs yet.
    pub fn on_loopback() -> Option<Self> {
        Self::prepare((0..NODES).map(|_| Place::on_loopback()).collect(), vec![Vec::new(); NODES])
    }

    /// Everything but the processes.
    pub fn prepare(places: Vec<Place>, launchers: Vec<Vec<String>>) -> Option<Self> {
        let binary = nats_server::find()?;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let mut secrets = Command::new(deploy.join("secrets.sh"));
        secrets.arg(dir.path().join("secrets")).args(places.iter().map(|place| &place.host));
        let made = secrets.output().expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let routes: Vec<_> =
            places.iter().map(|place| format!("nats://{}:{}", place.host, place.routes)).collect();
        let all = places.into_iter().enumerate().map(|(at, place)| {
            let node = dir.path().join(format!("node{at}"));
            std::fs::create_dir(&node).expect("a folder");
            for file in ["cluster.conf", "accounts.conf"] {
                std::fs::copy(deploy.join("nats").join(file), node.join(file)).expect("a shipped file");
            }
            std::fs::copy(dir.path().join("secrets/users.conf"), node.join("users.conf")).expect("users");
            let Place { host, clients, monitoring, routes: route } = &place;
            let tls = dir.path().join("secrets/tls");
            let conf = format!(
                "NODE: n{at}\nCLIENTS: \"{host}:{clients}\"\nMONITORING: \"{host}:{monitoring}\"\n\
                 ROUTES_LISTEN: \"{host}:{route}\"\nROUTES: {routes:?}\nSTORE: \"{}\"\n\
                 TLS_CERT: \"{}\"\nTLS_KEY: \"{}\"\nTLS_CA: \"{}\"\n",
                node.join("store").display(),
                tls.join("server.pem").display(),
                tls.join("server.key").display(),
                tls.join("ca.pem").display(),
            );
            std::fs::write(node.join("node.conf"), conf).expect("a file");
            Node { place, dir: node, child: None }
        });
        Some(Self { binary, all: all.collect(), launchers, dir })
    }

    /// Starts a node that does not run.
    pub fn run(&mut self, at: usize) {
        let node = &mut self.all[at];
        let words = self.launchers[at].iter().map(String::as_str);
        let mut words = words.chain([self.binary.to_str().expect("a path")]);
        let log = node.dir.join("server.log");
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .arg("-c")
            .arg(node.dir.join("cluster.conf"))
            .arg("--log")
            .arg(&log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        reaper::watch(child.id());
        node.child = Some(child);
    }

    /// Every node says that it can serve.
    pub async fn until_healthy(&self) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().expect("an HTTP client");
        for node in &self.all {
            let url = format!("http://{}:{}/healthz", node.place.host, node.place.monitoring);
            eventually(&format!("{url} is well\n{}", self.logs()), async || {
                let answer = http.get(&url).send().await.ok()?;
                answer.status().is_success().then_some(())
            })
            .await;
        }
    }

    /// Whether a node takes connections of clients.
    pub fn listens(&self, at: usize) -> bool {
        let Place { host, clients, .. } = &self.all[at].place;
        TcpStream::connect((host.as_str(), *clients)).is_ok()
    }

    fn logs(&self) -> String {
        let log = |node: &Node| std::fs::read_to_string(node.dir.join("server.log")).unwrap_or_default();
        self.all.iter().map(log).collect()
    }

    /// Ends a node as a crash would.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.all[at].child.take() {
            // May fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
            reaper::forget(child.id());
        }
    }

    /// Sends a signal such as `STOP` to a node.
    pub fn signal(&self, at: usize, signal: &str) {
        process::send(signal, self.pid(at));
    }

    pub fn pid(&self, at: usize) -> u32 {
        self.all[at].child.as_ref().expect("it runs").id()
    }

    pub fn url(&self, at: usize) -> String {
        self.all[at].place.url()
    }

    /// Where a node has its files.
    pub fn node_dir(&self, at: usize) -> PathBuf {
        self.all[at].dir.clone()
    }

    /// The servers, for a configuration.
    pub fn urls(&self) -> String {
        self.all.iter().map(|node| node.place.url()).collect::<Vec<_>>().join(",")
    }

    pub fn secret(&self, file: &str) -> PathBuf {
        self.dir.path().join("secrets").join(file)
    }

    /// `[nats]` for one of the roles.
    pub fn settings(&self, role: &str) -> String {
        let monitoring = |node: &Node| format!("http://{}:{}", node.place.host, node.place.monitoring);
        let monitoring: Vec<_> = self.all.iter().map(monitoring).collect();
        format!(
            "[nats]\nurl = {:?}\nnkey = \"file:{}\"\ntls_ca_file = \"{}\"\ninbox_prefix = \"_INBOX_{role}\"\n\
             monitoring_url = {:?}\nreplicas = {NODES}\n",
            self.urls(),
            self.secret(&format!("{role}.nk")).display(),
            self.secret("tls/ca.pem").display(),
            monitoring.join(","),
        )
    }

    /// How a stranger connects as one of the roles.
    pub fn stranger(&self, role: &str) -> ConnectOptions {
        let seed = std::fs::read_to_string(self.secret(&format!("{role}.nk"))).expect("a seed");
        let inbox = if role == "admin" { "_INBOX".to_owned() } else { format!("_INBOX_{role}") };
        ConnectOptions::with_nkey(seed.trim().to_owned())
            // A node that is cut off closes no connection: only silence tells.
            .ping_interval(Duration::from_secs(1))
            .add_root_certificates(self.secret("tls/ca.pem"))
            .custom_inbox_prefix(inbox)
    }

    /// Connects to every node but `without`.
    pub async fn connect(&self, role: &str, without: Option<usize>) -> async_nats::Client {
        let urls: Vec<String> = (0..NODES).filter(|at| Some(*at) != without).map(|at| self.url(at)).collect();
        self.stranger(role).connect(urls).await.expect("a NATS client")
    }

    /// Which node leads a stream.
    pub async fn leader(&self, admin: &async_nats::Client, stream: &str) -> usize {
        let jetstream = jetstream::new(admin.clone());
        eventually("the stream has a leader", async || {
            let stream = jetstream.get_stream(stream).await.ok()?;
            let leader = stream.cached_info().cluster.as_ref()?.leader.clone()?;
            leader.strip_prefix('n')?.parse().ok()
        })
        .await
    }

    /// Every replica of a stream has all of it.
    pub async fn until_current(&self, admin: &async_nats::Client, stream: &str) {
        let jetstream = jetstream::new(admin.clone());
        eventually("every replica is current", async || {
            let stream = jetstream.get_stream(stream).await.ok()?;
            let cluster = stream.cached_info().cluster.as_ref()?;
            let all = cluster.replicas.len() == NODES - 1 && cluster.replicas.iter().all(|peer| peer.current);
            (all && cluster.leader.is_some()).then_some(())
        })
        .await;
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for at in 0..self.all.len() {
            self.kill(at);
        }
        if std::thread::panicking() {
            for line in self.logs().lines().filter(|line| line.contains("[ERR]") || line.contains("[WRN]")) {
                eprintln!("{line}");
            }
        }
    }
}

/// The findings of `doctor --json`, as "name status".
pub fn findings(json: &str) -> Vec<String> {
    let findings: Vec<Value> = serde_json::from_str(json).expect("JSON");
    let word = |finding: &Value, key: &str| finding[key].as_str().expect("a word").to_owned();
    findings.iter().map(|finding| format!("{} {}", word(finding, "name"), word(finding, "status"))).collect()
}
