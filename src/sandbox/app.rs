//! The state behind every door, and the one path that every request takes.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::chat::ApiError;
use super::dataset::Dataset;
use super::fault::{Fault, Faults};
use super::ledger::{Endpoint, Recorder};
use super::options::SandboxOptions;
use super::respond::{error, json_bytes};

/// The largest answer that a fault cuts in two, in bytes.
const MAX_CUT_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct App {
    pub(super) dataset: Dataset,
    pub(super) models: Vec<String>,
    pub(super) faults: Faults,
    pub(super) recorder: Recorder,
    pub(super) chunk_latency: Duration,
    model_latency: Duration,
    source_latency: Duration,
    stopping: watch::Receiver<bool>,
}

impl App {
    pub(super) fn new(dataset: Dataset, options: SandboxOptions, stopping: watch::Receiver<bool>) -> Self {
        Self {
            dataset,
            models: options.models,
            faults: Faults::default(),
            recorder: Recorder::new(options.record_requests),
            chunk_latency: options.chunk_latency,
            model_latency: options.model_latency,
            source_latency: options.source_latency,
            stopping,
        }
    }

    /// Counts the request, waits as long as the stand-in or a fault says, and answers.
    pub(super) async fn exchange(
        &self,
        endpoint: Endpoint,
        uri: &Uri,
        body: &Bytes,
        answer: impl FnOnce() -> Response,
    ) -> Response {
        let arrival = self.recorder.arrived(endpoint, uri, body);
        let latency = if endpoint == Endpoint::Model { self.model_latency } else { self.source_latency };
        let fault = self.faults.take(endpoint);
        let delay = latency + fault.as_ref().map_or(Duration::ZERO, Fault::delay_time);
        let response = if self.pause(delay).await {
            match fault {
                None => answer(),
                Some(fault) => faulty(&fault, endpoint, answer).await,
            }
        } else {
            error(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the sandbox is stopping")
        };
        arrival.answered(response.status());
        response
    }

    /// Waits; false when the sandbox began to stop meanwhile.
    pub(super) async fn pause(&self, time: Duration) -> bool {
        if time.is_zero() {
            return true;
        }
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }
}

async fn faulty(fault: &Fault, endpoint: Endpoint, answer: impl FnOnce() -> Response) -> Response {
    let status = fault.status.and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = match (fault.body_bytes(), status) {
        (Some(body), status) => json_bytes(status.unwrap_or(StatusCode::OK), body),
        (None, Some(status)) if endpoint == Endpoint::Model => ApiError::injected(status).into_response(),
        (None, Some(status)) => error(status, "injected_fault", "this fault was asked for"),
        (None, None) => answer(),
    };
    for (name, value) in fault.header_pairs() {
        response.headers_mut().insert(name, value);
    }
    if fault.cut { cut(response).await } else { response }
}

/// Half of the body, then a dropped connection.
async fn cut(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    let whole = to_bytes(body, MAX_CUT_BYTES).await.unwrap_or_default();
    let half = whole.slice(..whole.len() / 2);
    let halves = stream::unfold(Some(half), |half| async move {
        match half {
            Some(half) if !half.is_empty() => Some((Ok(half), Some(Bytes::new()))),
            _ => {
                // Lets the connection send what it has before it learns that there will be no more.
                tokio::task::yield_now().await;
                Some((Err("cut off by a fault"), None))
            }
        }
    });
    Response::from_parts(parts, Body::from_stream(halves))
}
