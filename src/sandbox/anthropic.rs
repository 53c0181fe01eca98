//! The model's second door: the Anthropic Messages protocol.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Role, Turn, answer_of};
use super::app::App;
use super::chat::{Cut, deltas, event_stream, prompt_tokens};
use super::ledger::Endpoint;
use super::respond;

pub(super) async fn messages(
    State(app): State<Arc<App>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = body.unwrap_or_default();
    app.exchange(Endpoint::Model, &uri, &body, || match complete(&app, &body) {
        Ok(response) => response,
        Err((status, kind, message)) => respond::json(
            status,
            &json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": null}),
        ),
    })
    .await
}

type Refused = (StatusCode, &'static str, String);

fn invalid(message: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, "invalid_request_error", message.into())
}

fn complete(app: &Arc<App>, body: &[u8]) -> Result<Response, Refused> {
    let request: Value = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let model = request["model"].as_str().ok_or_else(|| invalid("model: Field required"))?;
    if !app.models.iter().any(|known| known == model) {
        return Err((StatusCode::NOT_FOUND, "not_found_error", format!("model: {model}")));
    }
    let max_tokens = request["max_tokens"]
        .as_u64()
        .filter(|tokens| *tokens > 0)
        .ok_or_else(|| invalid("max_tokens: Field required, greater than or equal to 1"))?;
    let messages = request["messages"].as_array().filter(|all| !all.is_empty());
    let messages = messages.ok_or_else(|| invalid("messages: at least one message is required"))?;
    let mut texts = Vec::with_capacity(messages.len() + 1);
    texts.extend(blocks(&request["system"]).into_iter().map(|text| (Role::System, text)));
    for message in messages {
        let role = match message["role"].as_str() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => return Err(invalid("messages: Input should be 'user' or 'assistant'")),
        };
        texts.extend(blocks(&message["content"]).into_iter().map(|text| (role, text)));
    }
    let turns: Vec<Turn<'_>> = texts.iter().map(|(role, text)| Turn { role: *role, text }).collect();
    let reply = Cut::new(&answer_of(model, &turns), Some(max_tokens));
    let message = Message {
        id: format!("msg_{}", uuid::Uuid::now_v7().simple()),
        model,
        input: prompt_tokens(&turns),
        reply,
    };
    if request["stream"].as_bool().unwrap_or(false) {
        return Ok(event_stream(app, message.events()));
    }
    Ok(respond::json(StatusCode::OK, &message.whole()))
}

/// One string, or the text of each content block: what was said apart stays apart.
fn blocks(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

struct Message<'a> {
    id: String,
    model: &'a str,
    input: u64,
    reply: Cut,
}

impl Message<'_> {
    fn stop_reason(&self) -> &'static str {
        if self.reply.shortened { "max_tokens" } else { "end_turn" }
    }

    fn usage(&self, output_tokens: u64) -> Value {
        json!({"input_tokens": self.input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
               "output_tokens": output_tokens})
    }

    fn whole(&self) -> Value {
        json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model,
               "content": [{"type": "text", "text": self.reply.text}], "stop_reason": self.stop_reason(),
               "stop_sequence": null, "usage": self.usage(self.reply.tokens)})
    }

    fn events(&self) -> Vec<Bytes> {
        let mut start = self.whole();
        start["content"] = json!([]);
        start["stop_reason"] = Value::Null;
        start["usage"] = self.usage(1);
        let mut events = vec![
            event("message_start", json!({"message": start})),
            event("content_block_start", json!({"index": 0, "content_block": {"type": "text", "text": ""}})),
            event("ping", json!({})),
        ];
        events.extend(deltas(&self.reply.text).map(|text| {
            event("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": text}}))
        }));
        let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let usage = json!({"output_tokens": self.reply.tokens});
        events.extend([
            event("content_block_stop", json!({"index": 0})),
            event("message_delta", json!({"delta": delta, "usage": usage})),
            event("message_stop", json!({})),
        ]);
        events
    }
}

fn event(kind: &str, mut data: Value) -> Bytes {
    data["type"] = json!(kind);
    format!("event: {kind}\ndata: {data}\n\n").into()
}
