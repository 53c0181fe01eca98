//! `throughline bench`: real workflows through a real nats-server, worker processes and upstreams over HTTP.
//!
//! Everything that is measured runs in its own process, so that CPU time and memory can be distinguished: the
//! nats-server, the workers, the upstreams, and this process, which only publishes and listens for ends.

mod driver;
mod process;
mod report;
mod rig;
mod stages;

use std::time::Duration;

pub use report::Report;
pub use rig::{BenchError, Upstreams};

use crate::nats_server::SyncInterval;
use rig::Rig;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Workflows to run, after a warm-up of a tenth of them.
    pub workflows: usize,
    /// Workflows in flight.
    pub concurrency: usize,
    /// Worker processes.
    pub workers: usize,
    /// How long the upstreams take.
    pub upstreams: Upstreams,
    /// How the nats-server syncs its files.
    pub sync: SyncInterval,
    /// URL of the database; none: a new SQLite file.
    pub database: Option<String>,
    /// Longest time for all of it.
    pub limit: Duration,
}

/// Runs the plan. Everything that was started is stopped again, also when the future is dropped.
pub async fn run(plan: &Plan, progress: impl Fn(usize)) -> Result<Report, BenchError> {
    let rig = Box::pin(Rig::start(plan)).await?;
    let measured = tokio::time::timeout(plan.limit, driver::run(&rig, plan, progress)).await;
    let report = match measured {
        Ok(Ok(run)) => {
            let stages = stages::times(&rig.bus, run.first_sequence).await;
            stages.map(|stages| Report::new(plan, &run, &stages))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(BenchError::TooSlow(plan.limit)),
    };
    rig.stop().await;
    report
}
