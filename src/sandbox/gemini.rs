//! The model's third door: Gemini `generateContent`.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Role, Turn, answer_of};
use super::app::App;
use super::chat::{Cut, deltas, event_stream, prompt_tokens};
use super::ledger::Endpoint;
use super::respond;

/// `call` is `{model}:generateContent` or `{model}:streamGenerateContent`.
pub(super) async fn generate(
    State(app): State<Arc<App>>,
    uri: Uri,
    Path(call): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = body.unwrap_or_default();
    app.exchange(Endpoint::Model, &uri, &body, || match complete(&app, &call, &uri, &body) {
        Ok(response) => response,
        Err((code, status, message)) => respond::json(
            code,
            &json!({"error": {"code": code.as_u16(), "message": message, "status": status}}),
        ),
    })
    .await
}

type Refused = (StatusCode, &'static str, String);

fn invalid(message: impl Into<String>) -> Refused {
    (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message.into())
}

fn complete(app: &Arc<App>, call: &str, uri: &Uri, body: &[u8]) -> Result<Response, Refused> {
    let not_found = || (StatusCode::NOT_FOUND, "NOT_FOUND", format!("models/{call} is not found"));
    let (model, method) = call.rsplit_once(':').ok_or_else(not_found)?;
    if !app.models.iter().any(|known| known == model) {
        return Err(not_found());
    }
    let stream = match method {
        "generateContent" => false,
        "streamGenerateContent" => true,
        _ => return Err(not_found()),
    };
    if stream && !uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "alt=sse")) {
        return Err(invalid("the sandbox streams with alt=sse only"));
    }
    let request: Value = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    let contents = request["contents"].as_array().filter(|all| !all.is_empty());
    let contents = contents.ok_or_else(|| invalid("contents is not specified"))?;
    let mut texts = Vec::with_capacity(contents.len() + 1);
    texts.extend(parts(&request["systemInstruction"]).map(|text| (Role::System, text)));
    for content in contents {
        let role = match content["role"].as_str() {
            Some("user") | None => Role::User,
            Some("model") => Role::Assistant,
            Some(_) => return Err(invalid("Please use a valid role: user, model.")),
        };
        texts.extend(parts(content).map(|text| (role, text)));
    }
    let turns: Vec<Turn<'_>> = texts.iter().map(|(role, text)| Turn { role: *role, text }).collect();
    let reply = Cut::new(&answer_of(model, &turns), request["generationConfig"]["maxOutputTokens"].as_u64());
    let answer =
        Answer { id: uuid::Uuid::now_v7().simple().to_string(), model, input: prompt_tokens(&turns), reply };
    if stream {
        return Ok(event_stream(app, answer.chunks()));
    }
    Ok(respond::json(StatusCode::OK, &answer.part(&answer.reply.text, true)))
}

/// The text of each part: what was said apart stays apart.
fn parts(content: &Value) -> impl Iterator<Item = &str> {
    content["parts"].as_array().into_iter().flatten().filter_map(|part| part["text"].as_str())
}

struct Answer<'a> {
    id: String,
    model: &'a str,
    input: u64,
    reply: Cut,
}

impl Answer<'_> {
    fn part(&self, text: &str, is_last: bool) -> Value {
        let mut candidate = json!({"content": {"parts": [{"text": text}], "role": "model"}, "index": 0});
        let mut usage = json!({"promptTokenCount": self.input, "totalTokenCount": self.input});
        if is_last {
            candidate["finishReason"] = json!(if self.reply.shortened { "MAX_TOKENS" } else { "STOP" });
            usage["candidatesTokenCount"] = json!(self.reply.tokens);
            usage["totalTokenCount"] = json!(self.input + self.reply.tokens);
        }
        json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": self.model, "responseId": self.id})
    }

    fn chunks(&self) -> Vec<Bytes> {
        let mut pieces: Vec<&str> = deltas(&self.reply.text).collect();
        if pieces.is_empty() {
            pieces.push("");
        }
        let last = pieces.len() - 1;
        let chunk =
            |(at, text): (usize, &&str)| format!("data: {}\r\n\r\n", self.part(text, at == last)).into();
        pieces.iter().enumerate().map(chunk).collect()
    }
}
