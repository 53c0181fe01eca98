//! The figures, as a table and as JSON.

use std::fmt;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Plan, driver::Run, process::Usage, stages::Times};
use crate::nats_server::SyncInterval;

/// Percentiles of a time, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    mean: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

/// What one part of the rig used.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Part {
    cpu_seconds_per_1000_workflows: f64,
    rss_mib_before: f64,
    rss_mib_after: f64,
    peak_rss_mib: f64,
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    workflows: usize,
    concurrency: usize,
    workers: usize,
    model_latency_ms: u128,
    source_latency_ms: u128,
    sync_always: bool,
    debug_build: bool,
    elapsed_seconds: f64,
    workflows_per_second: f64,
    /// From before publishing until this process heard of the end.
    end_to_end_ms: Percentiles,
    /// End to end in the event store, less the time inside calls to upstreams.
    engine_overhead_ms: Percentiles,
    /// By the event that ends the stage.
    stages_ms: Vec<(&'static str, Percentiles)>,
    /// Workers and nats-server together.
    engine_cpu_seconds_per_1000_workflows: f64,
    workers_used: Part,
    nats_server_used: Part,
    upstreams_used: Part,
    driver_used: Part,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Report {
    pub(super) fn new(plan: &Plan, run: &Run, times: &Times) -> Self {
        let part = |before: Usage, after: Usage| Part {
            cpu_seconds_per_1000_workflows: (after.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1000.0
                / run.workflows as f64,
            rss_mib_before: mib(before.rss),
            rss_mib_after: mib(after.rss),
            peak_rss_mib: mib(after.peak_rss),
        };
        let workers_used = part(run.before.workers, run.after.workers);
        let nats_server_used = part(run.before.nats, run.after.nats);
        Self {
            workflows: run.workflows,
            concurrency: plan.concurrency,
            workers: plan.workers,
            model_latency_ms: plan.upstreams.model_latency.as_millis(),
            source_latency_ms: plan.upstreams.source_latency.as_millis(),
            sync_always: plan.sync == SyncInterval::Always,
            debug_build: cfg!(debug_assertions),
            elapsed_seconds: run.elapsed.as_secs_f64(),
            workflows_per_second: run.workflows as f64 / run.elapsed.as_secs_f64(),
            end_to_end_ms: percentiles(&run.latency),
            engine_overhead_ms: percentiles(&times.overhead),
            stages_ms: times.stages.iter().map(|(of, times)| (of.as_str(), percentiles(times))).collect(),
            engine_cpu_seconds_per_1000_workflows: workers_used.cpu_seconds_per_1000_workflows
                + nats_server_used.cpu_seconds_per_1000_workflows,
            workers_used,
            nats_server_used,
            upstreams_used: part(run.before.upstreams, run.after.upstreams),
            driver_used: part(run.before.driver, run.after.driver),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn percentiles(micros: &Histogram<u64>) -> Percentiles {
    let ms = |micros: u64| micros as f64 / 1000.0;
    Percentiles {
        mean: micros.mean() / 1000.0,
        p50: ms(micros.value_at_quantile(0.50)),
        p95: ms(micros.value_at_quantile(0.95)),
        p99: ms(micros.value_at_quantile(0.99)),
        max: ms(micros.max()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.debug_build {
            writeln!(
                f,
                "This is a debug build: the figures say little. Use `cargo run --release -- bench`.\n"
            )?;
        }
        writeln!(
            f,
            "{} workflows, {} in flight, {} worker process(es), model {} ms, sources {} ms, sync_interval {}",
            self.workflows,
            self.concurrency,
            self.workers,
            self.model_latency_ms,
            self.source_latency_ms,
            if self.sync_always { "always" } else { "2m (default)" },
        )?;
        writeln!(
            f,
            "{:.0} workflows/s ({:.1} s); {:.3} CPU s per 1,000 workflows (workers and nats-server)\n",
            self.workflows_per_second, self.elapsed_seconds, self.engine_cpu_seconds_per_1000_workflows
        )?;
        let mut times = table(&["milliseconds", "mean", "p50", "p95", "p99", "max"]);
        let mut row = |name: &str, p: &Percentiles| {
            let figures = [p.mean, p.p50, p.p95, p.p99, p.max].map(|figure| format!("{figure:.2}"));
            times.add_row([name.to_owned()].into_iter().chain(figures));
        };
        row("end to end", &self.end_to_end_ms);
        row("engine overhead", &self.engine_overhead_ms);
        for (name, stage) in &self.stages_ms {
            row(&format!("-> {name}"), stage);
        }
        writeln!(f, "{times}")?;
        let mut parts = table(&["process", "CPU s / 1,000", "RSS before", "RSS after", "peak MiB"]);
        for (name, part) in [
            ("workers", &self.workers_used),
            ("nats-server", &self.nats_server_used),
            ("upstreams", &self.upstreams_used),
            ("this driver", &self.driver_used),
        ] {
            parts.add_row([
                name.to_owned(),
                format!("{:.3}", part.cpu_seconds_per_1000_workflows),
                format!("{:.0}", part.rss_mib_before),
                format!("{:.0}", part.rss_mib_after),
                format!("{:.0}", part.peak_rss_mib),
            ]);
        }
        write!(f, "{parts}")
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}
