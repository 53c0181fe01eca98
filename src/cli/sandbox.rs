//! `throughline sandbox`: only the stand-ins, for trying a worker against them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{Exit, Failure, output, signal::Signals};
use crate::sandbox::{Sandbox, SandboxConfig, SandboxError, SandboxOptions};

/// `throughline sandbox`
#[derive(Debug, Clone, Args)]
pub(super) struct SandboxArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Folder with `retail_users.json`, `retail_orders.json` and `retail_products.json`, served besides the built-in data
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long the model takes to answer, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    model_latency_ms: u64,
    /// How long each data source takes to answer, in milliseconds
    #[arg(long, default_value_t = 0, value_name = "MS")]
    source_latency_ms: u64,
    /// Keep requests and prompts for GET `/_sandbox/ledger`
    #[arg(long)]
    record: bool,
}

pub(super) async fn run(args: &SandboxArgs) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let sandbox = Sandbox::start(SandboxOptions {
        listen: args.listen,
        data_dir: args.data.clone(),
        model_latency: Duration::from_millis(args.model_latency_ms),
        source_latency: Duration::from_millis(args.source_latency_ms),
        record_requests: args.record,
        ..SandboxOptions::default()
    })
    .await?;
    output::note(&format!("the stand-ins listen on {}; this configuration uses them:", sandbox.base_url()));
    output::line(SandboxConfig::toml(&sandbox.base_url()).trim_end())?;
    signals.next().await;
    sandbox.shutdown().await;
    Ok(())
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        match error {
            SandboxError::Listen { .. } => Self { exit: Exit::Unavailable, ..Self::configuration(&error) },
            SandboxError::Dataset(_) => Self::configuration(&error),
        }
    }
}
