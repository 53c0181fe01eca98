//! The model's door: the `OpenAI` chat completions protocol.

mod error;
mod reply;
mod request;
mod stream;
mod validate;

use std::sync::Arc;
use tokio::time::Instant;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;

use super::answer::{Role, Turn, answer_of};
use super::app::App;
use super::ledger::Endpoint;
use super::respond;
pub(super) use error::ApiError;
use reply::Reply;
pub(super) use reply::{Cut, prompt_tokens};
use request::ChatRequest;
pub(super) use stream::{deltas, event_stream};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
const VERSION: HeaderName = HeaderName::from_static("openai-version");
const API_VERSION: HeaderValue = HeaderValue::from_static("2020-10-01");

/// `created` of the sandbox's models: they have always been there.
const MODELS_CREATED: u64 = 1_700_000_000;

pub(super) async fn completions(
    State(app): State<Arc<App>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let began = Instant::now();
    let id = uuid::Uuid::now_v7().simple().to_string();
    let (body, too_large) = match body {
        Ok(body) => (body, None),
        Err(rejection) => (Bytes::new(), Some(ApiError::unreadable(rejection.status()))),
    };
    let mut response = app
        .exchange(Endpoint::Model, &uri, &body, || match too_large {
            Some(error) => error.into_response(),
            None => complete(&app, &id, &body).unwrap_or_else(ApiError::into_response),
        })
        .await;
    let headers = response.headers_mut();
    // A fault that sets its own request id keeps it.
    if !headers.contains_key(&REQUEST_ID) {
        headers.extend(HeaderValue::try_from(format!("req_{id}")).map(|id| (REQUEST_ID, id)));
    }
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, HeaderValue::from(milliseconds));
    headers.insert(VERSION, API_VERSION);
    response
}

fn complete(app: &Arc<App>, id: &str, body: &[u8]) -> Result<Response, ApiError> {
    let request: ChatRequest<'_> =
        serde_json::from_slice(body).map_err(|error| validate::diagnose(body, &error))?;
    let checked = validate::check(&request, &app.models)?;
    let turns: Vec<Turn<'_>> = checked
        .messages
        .iter()
        .map(|message| Turn { role: Role::from_wire(&message.role.0), text: message.text() })
        .collect();
    let prompt_tokens = prompt_tokens(&turns);
    validate::check_context(prompt_tokens)?;
    let reply =
        Reply::new(id, checked.model, &answer_of(checked.model, &turns), prompt_tokens, checked.max_tokens);
    if request.stream.unwrap_or(false) {
        let usage = request.stream_options.is_some_and(|options| options.include_usage.unwrap_or(false));
        return Ok(stream::respond(app, &reply, usage));
    }
    Ok(respond::json(StatusCode::OK, &reply.completion()))
}

pub(super) async fn list_models(State(app): State<Arc<App>>) -> Response {
    let models: Vec<_> = app.models.iter().map(|name| model(name)).collect();
    respond::json(StatusCode::OK, &json!({ "object": "list", "data": models }))
}

pub(super) async fn show_model(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    if app.models.contains(&name) {
        respond::json(StatusCode::OK, &model(&name))
    } else {
        ApiError::model_not_found(&name).into_response()
    }
}

fn model(name: &str) -> serde_json::Value {
    json!({ "id": name, "object": "model", "created": MODELS_CREATED, "owned_by": "throughline-sandbox" })
}
