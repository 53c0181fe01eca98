//! What a provider says when it fails: with an error status, or in an answer that began well; in whatever shape.
//!
//! One table for all providers: gateways pass the errors of the one on in the form of the other.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use throughline_actors::ports::model::ModelError;

use super::draft::preview;
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
    /// `error.type`, or Gemini's `error.status`.
    kind: Option<String>,
    /// A status in the body, which is all there is where the answer had begun with success.
    status: Option<u16>,
    message: Option<String>,
    /// How long the body asks to wait.
    wait: Option<Duration>,
    /// What the details name that nothing else does.
    detail: Option<Detail>,
}

/// Google's `details` that change what the error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// The key is not one.
    ApiKey,
    /// A quota for a whole day is used up.
    DailyQuota,
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
            kind: scalar(&error["type"]).or_else(|| scalar(&error["status"])),
            status: [&error["code"], &error["status_code"]].into_iter().find_map(status),
            detail: detail(error),
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

    /// What the error is: by its code or type if they are known, else by its status, else by its words.
    pub(super) fn classify(&self, status: StatusCode) -> ModelError {
        let status = status.as_u16();
        let said = || format!("{} (HTTP {status})", self.text());
        if status == 413 {
            // The request is too large and stays so, whatever the body calls it (RESOURCE_EXHAUSTED, for one).
            return self.worded(said());
        }
        self.named(&said).unwrap_or_else(|| self.by_status(status, said()))
    }

    /// The same where the answer's status was a success, and its body says otherwise.
    pub(super) fn classify_success(&self) -> ModelError {
        let said = || self.text();
        let asked_wrong = |name: &String| {
            matches!(name.as_str(), "invalid_request_error" | "INVALID_ARGUMENT" | "FAILED_PRECONDITION")
        };
        self.named(&said).unwrap_or_else(|| match self.status {
            Some(status) => self.by_status(status, said()),
            None if self.kind.as_ref().is_some_and(asked_wrong) => self.worded(said()),
            None => ModelError::Server(said()),
        })
    }

    /// By the names that the providers document.
    fn named(&self, said: &dyn Fn() -> String) -> Option<ModelError> {
        match self.detail {
            Some(Detail::ApiKey) => return Some(ModelError::Credentials),
            Some(Detail::DailyQuota) => return Some(ModelError::QuotaExhausted(said())),
            None => {}
        }
        [&self.code, &self.kind].into_iter().flatten().find_map(|name| {
            Some(match name.as_str() {
                "insufficient_quota"
                | "billing_not_active"
                | "billing_hard_limit_reached"
                | "billing_error" => ModelError::QuotaExhausted(said()),
                "context_length_exceeded" | "exceed_context_size_error" | "string_above_max_length" => {
                    ModelError::ContextTooLong(said())
                }
                "content_filter" | "content_policy_violation" | "ResponsibleAIPolicyViolation" => {
                    ModelError::ContentFiltered(said())
                }
                "model_not_found" | "DeploymentNotFound" | "not_found_error" => {
                    ModelError::UnknownModel(said())
                }
                "invalid_api_key"
                | "authentication_error"
                | "permission_error"
                | "UNAUTHENTICATED"
                | "PERMISSION_DENIED" => ModelError::Credentials,
                "rate_limit_exceeded" | "rate_limit_error" | "RESOURCE_EXHAUSTED" => ModelError::RateLimited,
                _ => return None,
            })
        })
    }

    fn by_status(&self, status: u16, said: String) -> ModelError {
        match status {
            401 | 403 => ModelError::Credentials,
            402 => ModelError::QuotaExhausted(said),
            404 => ModelError::UnknownModel(format!("{said}; check the model's name and the base_url")),
            429 => ModelError::RateLimited,
            408 | 409 | 425 | 500..=599 => ModelError::Server(said),
            300..=399 => ModelError::BadRequest(format!(
                "it redirects (HTTP {status}), which is not followed; set base_url to where it leads"
            )),
            _ => self.worded(said),
        }
    }

    /// Some refusals of a request differ in nothing but their words.
    fn worded(&self, said: String) -> ModelError {
        let words = self.message.as_deref().unwrap_or_default().to_ascii_lowercase();
        let has = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
        if has(&TOO_LONG) {
            ModelError::ContextTooLong(said)
        } else if has(&NO_CREDIT) {
            ModelError::QuotaExhausted(said)
        } else if has(&FILTERED) {
            ModelError::ContentFiltered(said)
        } else {
            ModelError::BadRequest(said)
        }
    }
}

/// Anthropic, Gemini, `OpenAI` and its kin.
const TOO_LONG: [&str; 5] = [
    "prompt is too long",
    "input token count",
    "maximum context length",
    "exceeds the available context size",
    "exceed context limit",
];
/// Anthropic.
const NO_CREDIT: [&str; 1] = ["credit balance is too low"];
/// Anthropic.
const FILTERED: [&str; 1] = ["blocked by content filtering policy"];

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

/// A number, or its digits, that can only be an HTTP status of a failure.
fn status(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|status| (400..=599).contains(status))
}

/// Google's `ErrorInfo` and `QuotaFailure`.
fn detail(error: &Value) -> Option<Detail> {
    error["details"].as_array()?.iter().find_map(|detail| {
        let daily =
            |violation: &Value| violation["quotaId"].as_str().is_some_and(|quota| quota.contains("PerDay"));
        if detail["reason"] == "API_KEY_INVALID" {
            Some(Detail::ApiKey)
        } else if detail["violations"].as_array().is_some_and(|violations| violations.iter().any(daily)) {
            Some(Detail::DailyQuota)
        } else {
            None
        }
    })
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
