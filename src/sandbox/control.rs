//! `/_sandbox/...`: faults, counts and the ledger.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;

use super::app::App;
use super::fault::Fault;
use super::respond::{error, json};

type Shared = State<Arc<App>>;

pub(super) async fn set_fault(State(app): Shared, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), "invalid_fault", &rejection.body_text()),
    };
    let refused = match serde_json::from_slice::<Fault>(&body) {
        Ok(fault) => match app.faults.set(fault) {
            Ok(()) => return json(StatusCode::OK, &app.faults.list()),
            Err(refused) => refused.to_string(),
        },
        Err(refused) => refused.to_string(),
    };
    error(StatusCode::BAD_REQUEST, "invalid_fault", &refused)
}

pub(super) async fn list_faults(State(app): Shared) -> Response {
    json(StatusCode::OK, &app.faults.list())
}

pub(super) async fn clear_faults(State(app): Shared) -> Response {
    app.faults.clear();
    json(StatusCode::OK, &app.faults.list())
}

pub(super) async fn counts(State(app): Shared) -> Response {
    json(StatusCode::OK, &app.recorder.counts())
}

pub(super) async fn ledger(State(app): Shared) -> Response {
    json(StatusCode::OK, &app.recorder.ledger())
}
