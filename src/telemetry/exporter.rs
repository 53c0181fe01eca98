//! Runs the OTLP exporter where it can run, within a limit, and says once when it stops working.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use tokio::runtime::Handle;

/// An exporter for [`opentelemetry_sdk::trace::BatchSpanProcessor`], which calls exporters from a thread of its own,
/// whereas reqwest needs tokio: each export is a task of the runtime.
pub(super) struct OnRuntime<E> {
    exporter: Arc<E>,
    runtime: Handle,
    limit: Duration,
    failing: AtomicBool,
}

impl<E> OnRuntime<E> {
    /// `limit` is that of one batch, retries included.
    pub(super) fn new(exporter: E, runtime: Handle, limit: Duration) -> Self {
        Self { exporter: Arc::new(exporter), runtime, limit, failing: AtomicBool::new(false) }
    }

    /// A collector that is down for an hour is worth two lines.
    fn note(&self, result: &OTelSdkResult) {
        let failed = result.is_err();
        if self.failing.swap(failed, Ordering::Relaxed) == failed {
            return;
        }
        if let Err(error) = result {
            tracing::warn!(%error, "traces are lost until the OTLP collector answers again");
        } else {
            tracing::info!("traces are exported again");
        }
    }
}

// The exporter's own form would show its headers.
impl<E> fmt::Debug for OnRuntime<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRuntime").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<E: SpanExporter + 'static> SpanExporter for OnRuntime<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let (exporter, limit) = (Arc::clone(&self.exporter), self.limit);
        let task = self.runtime.spawn(async move {
            let export = tokio::time::timeout(limit, exporter.export(batch)).await;
            export.unwrap_or(Err(OTelSdkError::Timeout(limit)))
        });
        async move {
            // The task ends early only when the runtime does.
            let result = task.await.unwrap_or(Err(OTelSdkError::AlreadyShutdown));
            self.note(&result);
            result
        }
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called while the provider is built, before there is any export to share the exporter with.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}
