//! What is answered with an error status, in whatever shape.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use throughline_actors::ports::model::ModelError;

use super::answer::preview;
use crate::http_client::credential::Redactor;
use crate::http_client::{retry_after, text, without_bom};

/// Longest message that is passed on, in characters.
const MAX_MESSAGE_CHARS: usize = 300;
/// Longest code or type that is passed on, in characters.
const MAX_CODE_CHARS: usize = 64;

/// An error body, reduced to what counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `error.code`, which some servers send as a number.
    code: Option<String>,
    /// `error.type`
    kind: Option<String>,
    message: Option<String>,
    /// How long the body asks to wait.
    wait: Option<Duration>,
}

impl Refusal {
    /// Makes the best of any body.
    pub(super) fn read(body: &[u8], redactor: &Redactor) -> Self {
        match serde_json::from_slice(without_bom(body)) {
            Ok(mut value) => {
                redactor.json(&mut value);
                Self::of(&value)
            }
            Err(_) => Self { message: non_empty(&preview(body, redactor)), ..Self::default() },
        }
    }

    /// Reads `{"error": {...}}`, `{"error": "..."}`, `{"detail": ...}`, `{"message": ...}`, and an array of these.
    pub(super) fn of(value: &Value) -> Self {
        let value = if value.is_array() { &value[0] } else { value };
        let error = if is_error(&value["error"]) { &value["error"] } else { value };
        let words = error
            .as_str()
            .or_else(|| ["message", "detail", "error"].iter().find_map(|name| error[*name].as_str()))
            .or_else(|| error["detail"][0]["msg"].as_str());
        // Some gateways put the upstream's error, as text, into the message of their own.
        let inner = words
            .filter(|words| words.trim_start().starts_with(['{', '[']))
            .and_then(|words| serde_json::from_str::<Value>(words).ok())
            .map(|inner| inner["error"]["message"].as_str().unwrap_or_default().to_owned());
        let words = inner.as_deref().filter(|inner| !inner.is_empty()).or(words);
        Self {
            code: scalar(&error["code"]),
            kind: scalar(&error["type"]),
            message: words
                .map(|words| text::one_line(words, MAX_MESSAGE_CHARS))
                .and_then(|line| non_empty(&line)),
            wait: wait(error).or_else(|| words.and_then(retry_after::from_message)),
        }
    }

    /// How long the body asks to wait.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// The provider's words and its code.
    pub(super) fn text(&self) -> String {
        let words = self.message.as_deref().unwrap_or("no message");
        match self.code.as_ref().or(self.kind.as_ref()) {
            Some(code) => format!("{words} ({code})"),
            None => words.to_owned(),
        }
    }

    /// What the error is: by its code or type if they are known, else by its status.
    pub(super) fn classify(&self, status: StatusCode) -> ModelError {
        let said = || format!("{} (HTTP {})", self.text(), status.as_u16());
        let names = [&self.code, &self.kind];
        for name in names.into_iter().flatten() {
            match name.as_str() {
                "insufficient_quota" | "billing_not_active" | "billing_hard_limit_reached" => {
                    return ModelError::QuotaExhausted(said());
                }
                "context_length_exceeded" | "exceed_context_size_error" => {
                    return ModelError::ContextTooLong(said());
                }
                "model_not_found" => return ModelError::UnknownModel(said()),
                "invalid_api_key" | "authentication_error" => return ModelError::Credentials,
                "rate_limit_exceeded" | "rate_limit_error" => return ModelError::RateLimited,
                _ => {}
            }
        }
        match status.as_u16() {
            401 | 403 => ModelError::Credentials,
            402 => ModelError::QuotaExhausted(said()),
            404 => ModelError::UnknownModel(format!("{}; check the model's name and the base_url", said())),
            429 => ModelError::RateLimited,
            408 | 409 | 425 | 500..=599 => ModelError::Server(said()),
            300..=399 => ModelError::BadRequest(format!(
                "it redirects (HTTP {}), which is not followed; set base_url to where it leads",
                status.as_u16()
            )),
            _ => ModelError::BadRequest(said()),
        }
    }
}

/// Whether an `error` field says that there is one; servers also send `null`, `false`, `0`, `""`,
/// `{}` and `[]`.
pub(super) fn is_error(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(number) => number.as_u64() != Some(0),
        Value::Bool(true) => true,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => non_empty(&text::one_line(text, MAX_CODE_CHARS)),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Google's `RetryInfo`, which its compatible endpoint passes on.
fn wait(error: &Value) -> Option<Duration> {
    let details = error["details"].as_array()?;
    details.iter().find_map(|detail| retry_after::from_units(detail["retryDelay"].as_str()?))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
