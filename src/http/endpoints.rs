//! The routes and their answers.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use super::{
    HttpState,
    readiness::{self, Probes},
};
use crate::telemetry::metrics;

/// Limit on one answer. Above that of the readiness checks, so that it is never what ends them.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn router(state: HttpState) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(scrape))
        .fallback(unknown)
        .method_not_allowed_fallback(only_get)
        .layer(middleware::from_fn(limited))
        .with_state(Served { state, probes: Probes::default() })
}

/// What the routes share.
#[derive(Clone)]
struct Served {
    state: HttpState,
    probes: Probes,
}

/// The process is alive and schedules tasks; what it depends on is not its health but its readiness, or a restart of
/// the database would restart every worker.
async fn health() -> Response {
    fresh(Json(json!({"status": "ok"})))
}

async fn readiness(State(served): State<Served>) -> Response {
    let found = readiness::check(&served.state, &served.probes).await;
    let status = if found.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    fresh((status, Json(found)))
}

async fn scrape(State(served): State<Served>) -> Response {
    fresh(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], served.state.metrics.render()))
}

async fn unknown() -> Response {
    let error = "there is nothing here; try /healthz, /readyz or /metrics";
    (StatusCode::NOT_FOUND, Json(json!({"error": error}))).into_response()
}

async fn only_get() -> Response {
    let error = "only GET is answered here";
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], Json(json!({"error": error})))
        .into_response()
}

/// An answer that is true now and not to be kept.
fn fresh(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

async fn limited(request: Request, next: Next) -> Response {
    tokio::time::timeout(ANSWER_LIMIT, next.run(request)).await.unwrap_or_else(|_| {
        let error = format!("no answer within {ANSWER_LIMIT:?}");
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": error}))).into_response()
    })
}
