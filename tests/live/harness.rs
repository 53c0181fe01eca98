//! What the live tests share: real processes, the event log as a stranger reads it, and the stand-ins' records.
#![allow(unreachable_pub)]

pub mod certificates;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod corpora;
pub mod deadline;
pub mod deployment;
pub mod disk;
pub mod figures;
pub mod frames;
pub mod left_out;
pub mod llama;
pub mod llmock;
pub mod log;
pub mod nodes;
pub mod process;
pub mod python;
pub mod reaper;
pub mod servers;
pub mod stand_ins;
pub mod stored;
pub mod usage;

pub use cluster::Cluster;
pub use config::Settings;
pub use deployment::Deployment;
pub use figures::Figures;
pub use frames::Frames;
pub use llmock::LlMock;
pub use log::{Log, Seen};
pub use nodes::Nodes;
pub use process::Program;
pub use servers::Servers;
pub use stand_ins::StandIns;

use std::time::Duration;

/// Within this a thing that must happen has happened, whatever else the machine is doing.
pub const SOON: Duration = Duration::from_secs(30);
/// Between looks at something that cannot be waited for.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks until there is something to see.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A port that nobody listens on: one that the system has just given out is not given out again soon.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A client for loopback.
pub fn http_client() -> reqwest::Client {
    // An error says that there is a provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().tls_certs_only([]).no_proxy().build().expect("an HTTP client")
}
