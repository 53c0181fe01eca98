//! Logs, traces and metrics of this process.
//!
//! - Logs go to stderr, as `[log]` says.
//! - Traces go to an OpenTelemetry collector if `OTEL_EXPORTER_OTLP_ENDPOINT` is set ([`otlp`]); otherwise no span is
//!   recorded for export, and only the trace context travels from event to event ([`tracer`]).
//! - Metrics are kept in memory and read by scrapers ([`metrics`]).
//!
//! Log and trace have filters of their own: `log.filter = "error"` silences the log and leaves traces whole.

mod exporter;
mod log;
pub mod metrics;
pub mod otlp;
mod process;
mod tracer;

use std::{io::IsTerminal, sync::Arc, time::Duration};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use throughline_actors::ports::trace::Tracer;
use tokio::runtime::{Handle, TryCurrentError};
use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::{Layer, Registry, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Env, Log};

pub use metrics::{Metrics, MetricsError};
pub use otlp::OtlpError;

/// How long spans that are not exported yet may hold up the end of the process.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(3);

/// Spans of these crates are exported; those of the libraries beneath are noise at best, and the exporter's own
/// would never end.
const TRACED: &str = "throughline";

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Why there is no telemetry.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter.
    #[error("log.filter {filter:?} is no log filter; use one such as \"info,throughline=debug\"")]
    Filter {
        /// As configured.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The export of traces.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A mistake of ours.
    #[error("telemetry must be set up inside the tokio runtime that carries it")]
    NoRuntime(#[from] TryCurrentError),
    /// Something else in this process takes logs and traces already.
    #[error("logs and traces of this process go elsewhere already; initialise telemetry once")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Logs, traces and metrics of this process.
#[must_use = "spans that wait for their export are lost without Telemetry::shutdown"]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Metrics,
}

impl Telemetry {
    /// Takes logs, traces and metrics of the whole process from now on. Call it once, inside the runtime.
    pub fn init(log: &Log, env: &Env) -> Result<Self, TelemetryError> {
        let runtime = Handle::try_current()?;
        let (recorder, metrics) = Metrics::recorder(&runtime)?;
        let (subscriber, traces) = subscriber(log, env, &runtime)?;
        subscriber.try_init()?;
        metrics::install(recorder)?;
        Ok(Self { traces, metrics })
    }

    /// The same for as long as the subscriber is put to use, without metrics: for tests, which share a process.
    pub fn apart(log: &Log, env: &Env) -> Result<(Dispatch, Self), TelemetryError> {
        let runtime = Handle::try_current()?;
        let (_, metrics) = Metrics::recorder(&runtime)?;
        let (subscriber, traces) = subscriber(log, env, &runtime)?;
        Ok((subscriber, Self { traces, metrics }))
    }

    /// Ties spans to workflows, as the engine needs it.
    pub fn tracer(&self) -> Arc<dyn Tracer> {
        match self.traces {
            Some(_) => Arc::new(tracer::Exported),
            None => Arc::new(tracer::HandedOn),
        }
    }

    /// The metrics, to be scraped.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Exports what waits for its export, within [`FLUSH_LIMIT`]. Spans that end later are lost.
    pub async fn shutdown(self) {
        let Some(provider) = self.traces else { return };
        // It blocks its thread, and the export needs the runtime.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_LIMIT));
        match tokio::time::timeout(FLUSH_LIMIT, flush).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans were not exported"),
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not exported"),
            Err(_) => tracing::warn!(limit = ?FLUSH_LIMIT, "the last spans were not exported in time"),
        }
    }
}

fn subscriber(
    log: &Log,
    env: &Env,
    runtime: &Handle,
) -> Result<(Dispatch, Option<SdkTracerProvider>), TelemetryError> {
    let colours = log::colours(std::io::stderr().is_terminal(), env);
    let log = log::layer(log, colours, std::io::stderr)?;
    let traces = otlp::provider(env, runtime)?;
    Ok((registry(log, traces.as_ref()), traces))
}

fn registry(log: AnyLayer, traces: Option<&SdkTracerProvider>) -> Dispatch {
    let layers: Vec<AnyLayer> = std::iter::once(log).chain(traces.map(export_layer)).collect();
    Registry::default().with(layers).into()
}

/// Turns spans into OpenTelemetry's. Source locations, threads and busy times say nothing about a workflow and would
/// double what a span costs; the context is never taken from the thread but handed on in events.
fn export_layer(provider: &SdkTracerProvider) -> AnyLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(TRACED))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(Targets::new().with_target(TRACED, LevelFilter::INFO))
        .boxed()
}

#[cfg(test)]
mod tests;
