//! `throughline bench`.

use std::{cell::Cell, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{BenchArgs, Failure, Sync, output, signal::Signals};
use crate::{
    bench::{self, BenchError, Plan, Upstreams},
    nats_server::SyncInterval,
};

/// Longest time that a benchmark may take.
const LIMIT: Duration = Duration::from_hours(1);

/// How many ends lie between two updates of the progress bar.
const PROGRESS_STEP: usize = 100;

pub(super) async fn run(args: &BenchArgs, database: Option<&str>) -> Result<(), Failure> {
    let plan = Plan {
        workflows: args.workflows.max(1),
        concurrency: args.concurrency.max(1),
        workers: args.workers.max(1),
        upstreams: Upstreams {
            model_latency: Duration::from_millis(args.model_latency_ms),
            source_latency: Duration::from_millis(args.source_latency_ms),
        },
        sync: match args.sync {
            Sync::Default => SyncInterval::Default,
            Sync::Always => SyncInterval::Always,
        },
        database: database.map(str::to_owned),
        limit: LIMIT,
    };
    let bar = ProgressBar::new(plan.workflows as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} workflows, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    let ended = Cell::new(0_usize);
    let progress = |_| {
        ended.set(ended.get() + 1);
        if ended.get().is_multiple_of(PROGRESS_STEP) {
            bar.set_position(ended.get() as u64);
        }
    };
    let mut signals = Signals::install()?;
    let report = tokio::select! {
        report = bench::run(&plan, progress) => report.map_err(Failure::from)?,
        name = signals.next() => return Err(Failure::failed(format!("stopped by {name}; no figures"))),
    };
    bar.finish_and_clear();
    if args.json {
        return output::line(&serde_json::to_string_pretty(&report).map_err(Failure::failed)?);
    }
    output::line(&report.to_string())
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Config(_) => Self::configuration(&error),
            BenchError::NatsServer(_) | BenchError::Adapter(_) | BenchError::Bus(_) => {
                Self::unavailable(&error)
            }
            BenchError::Io { .. }
            | BenchError::NotReady(_)
            | BenchError::Publish(_)
            | BenchError::Failed { .. }
            | BenchError::Unreadable(_)
            | BenchError::TooSlow(_) => Self::failed(super::exit::with_causes(&error)),
        }
    }
}
