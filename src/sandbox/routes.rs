//! The doors of the data sources, and the table of all doors.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;

use super::anthropic;
use super::app::App;
use super::chat::{self, ApiError};
use super::control;
use super::gemini;
use super::ledger::Endpoint;
use super::respond::{error, json_bytes};

/// The largest request body that is read, in bytes.
pub(super) const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;

type Shared = State<Arc<App>>;

pub(super) fn router(app: Arc<App>) -> Router {
    let limit = DefaultBodyLimit::max(MAX_REQUEST_BYTES);
    Router::new()
        .route("/customers/{user_id}", get(customer))
        .route("/customers/{user_id}/orders", get(customer_orders))
        .route("/orders/{order_id}", get(order))
        .route("/products/{product_id}", get(product))
        .route("/v1/chat/completions", post(chat::completions).layer(limit))
        .route("/v1/messages", post(anthropic::messages).layer(limit))
        .route("/v1beta/models/{call}", post(gemini::generate).layer(limit))
        .route("/v1/models", get(chat::list_models))
        .route("/v1/models/{model}", get(chat::show_model))
        .route(
            "/_sandbox/faults",
            post(control::set_fault).get(control::list_faults).delete(control::clear_faults).layer(limit),
        )
        .route("/_sandbox/counts", get(control::counts))
        .route("/_sandbox/ledger", get(control::ledger))
        .fallback(no_such_url)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

async fn customer(State(app): Shared, uri: Uri, Path(id): Path<String>) -> Response {
    app.exchange(Endpoint::Customers, &uri, &Bytes::new(), || {
        found(app.dataset.profile(&id), "customer", &id)
    })
    .await
}

async fn customer_orders(State(app): Shared, uri: Uri, Path(id): Path<String>) -> Response {
    app.exchange(Endpoint::CustomerOrders, &uri, &Bytes::new(), || {
        found(app.dataset.orders_of(&id), "customer", &id)
    })
    .await
}

async fn order(State(app): Shared, uri: Uri, Path(id): Path<String>) -> Response {
    app.exchange(Endpoint::Orders, &uri, &Bytes::new(), || found(app.dataset.order(&id), "order", &id)).await
}

async fn product(State(app): Shared, uri: Uri, Path(id): Path<String>) -> Response {
    app.exchange(Endpoint::Products, &uri, &Bytes::new(), || found(app.dataset.product(&id), "product", &id))
        .await
}

fn found(body: Option<Bytes>, what: &str, id: &str) -> Response {
    match body {
        Some(body) => json_bytes(StatusCode::OK, body),
        None => error(StatusCode::NOT_FOUND, "not_found", &format!("there is no {what} with the id {id:?}")),
    }
}

async fn no_such_url(method: Method, uri: Uri) -> Response {
    if uri.path().starts_with("/v1/") {
        return ApiError::invalid_url(&method, uri.path()).into_response();
    }
    error(StatusCode::NOT_FOUND, "not_found", "the sandbox has no such URL")
}

async fn no_such_method(method: Method, uri: Uri) -> Response {
    if uri.path().starts_with("/v1/") {
        return ApiError::method_not_allowed(&method, uri.path()).into_response();
    }
    error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the sandbox does not serve this method here")
}
