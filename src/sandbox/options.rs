use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::config::{DEFAULT_MODEL, LARGE_MODEL};

/// What a [`Sandbox`](super::Sandbox) is started with. The default listens on a free loopback port, serves the
/// built-in data set, answers at once and keeps counts only.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A directory with `retail_users.json`, `retail_orders.json` and `retail_products.json`, maps by id, served
    /// in addition to the built-in data set.
    pub data_dir: Option<PathBuf>,
    /// Names of the models that answer; any other is `model_not_found`.
    pub models: Vec<String>,
    /// How long the model takes before the first byte of its answer.
    pub model_latency: Duration,
    /// How long the model takes between two chunks of a streamed answer.
    pub chunk_latency: Duration,
    /// How long each data source takes.
    pub source_latency: Duration,
    /// Keep the newest requests and their prompts for `GET /_sandbox/ledger`. Off, only counts are kept, which
    /// is what a benchmark wants.
    pub record_requests: bool,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            models: vec![DEFAULT_MODEL.to_owned(), LARGE_MODEL.to_owned()],
            model_latency: Duration::ZERO,
            chunk_latency: Duration::ZERO,
            source_latency: Duration::ZERO,
            record_requests: false,
        }
    }
}
