//! What a provider says when it fails: with an error status, or in an answer that began well; in whatever shape.

mod evidence;
mod page;
mod places;

use std::sync::Once;
use std::thread;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use throughline_actors::ports::model::ModelError;

use self::evidence::{Class, Evidence};
use self::places::{MAX_MESSAGE_CHARS, Parts};
use super::{halves, json};
use crate::http_client::credential::Redactor;
use crate::http_client::{retry_after, text, without_bom};

/// Makes the patterns, on another thread than the caller: that takes some hundredths of a second, in which the first error would keep
/// others from learning that they are to wait.
pub(super) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Where no thread can be had, the first error makes them.
        drop(thread::Builder::new().name("patterns".to_owned()).spawn(|| {
            evidence::prepare();
            retry_after::prepare();
        }));
    });
}

/// An error, reduced to what counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ProviderError {
    parts: Parts,
    message: Option<String>,
    /// It is a web page.
    is_page: bool,
}

impl ProviderError {
    /// Makes the best of any body.
    pub(super) fn read(body: &[u8], redactor: &Redactor) -> Self {
        let body = without_bom(body).trim_ascii();
        if let Ok(mut read) = json::read(body) {
            if read.has_halves {
                halves::join_all(&mut read.value);
            }
            return Self::of(&read.value, redactor);
        }
        if let Some(refusal) =
            events(body).find_map(|data| Some(Self::of(&json::read(data).ok()?.value, redactor)))
        {
            return refusal;
        }
        let is_page = page::is_page(body);
        let words = if is_page {
            let mut words = page::words(body, MAX_MESSAGE_CHARS);
            redactor.text(&mut words);
            words
        } else {
            super::parsed_answer::preview(body, redactor)
        };
        Self { is_page, ..Self::in_words(&words) }
    }

    /// An error that is no more than words, without the provider's keys.
    pub(super) fn in_words(words: &str) -> Self {
        let line = text::one_line(words, MAX_MESSAGE_CHARS);
        let parts = Parts { wait: retry_after::from_message(words), ..Parts::default() };
        Self { parts, message: Some(line).filter(|line| !line.is_empty()), is_page: false }
    }

    /// Reads errors in any of the forms that are known, and an array of these.
    pub(super) fn of(value: &Value, redactor: &Redactor) -> Self {
        let parts = Parts::of(value, redactor);
        Self { message: parts.message(), parts, is_page: false }
    }

    /// The same, called by this name, which a provider gave elsewhere.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.parts.names.push(name.to_owned());
        self.parts.kind.get_or_insert_with(|| name.to_owned());
        self
    }

    /// How long the body asks to wait.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.parts.wait
    }

    /// The provider's words and its code.
    pub(super) fn text(&self) -> String {
        let words = self.message.as_deref().unwrap_or("no message");
        let page = if self.is_page { " (a web page)" } else { "" };
        match self.parts.code.as_ref().or(self.parts.kind.as_ref()) {
            Some(code) if !words.contains(code.as_str()) || code.len() < 4 => {
                format!("{words}{page} ({code})")
            }
            Some(_) | None => format!("{words}{page}"),
        }
    }

    /// What the error is, under this status.
    pub(super) fn classify(&self, status: StatusCode) -> ModelError {
        let status = status.as_u16();
        let said = format!("{} (HTTP {status})", self.text());
        if (300..=399).contains(&status) {
            return ModelError::BadRequest(format!(
                "it redirects (HTTP {status}), which is not followed; set base_url to where it leads"
            ));
        }
        self.error(Some(self.telling(status)), said)
    }

    /// The same where the answer's status was a success, and its body says otherwise.
    pub(super) fn classify_success(&self) -> ModelError {
        self.error(self.parts.statuses.first().copied(), self.text())
    }

    /// Whether it says anything in words.
    pub(super) fn has_words(&self) -> bool {
        self.message.is_some()
    }

    /// Whether its words and names say what it is.
    pub(super) fn is_telling(&self) -> bool {
        self.weigh(None).is_some()
    }

    /// The body's own status, where the HTTP status says nothing in particular.
    fn telling(&self, status: u16) -> u16 {
        if status != 400 {
            return status;
        }
        self.parts.statuses.iter().copied().find(|inner| *inner != 400).unwrap_or(status)
    }

    fn weigh(&self, status: Option<u16>) -> Option<Class> {
        if self.parts.is_daily_quota {
            return Some(Class::Quota);
        }
        evidence::weigh(Evidence {
            names: &self.parts.names,
            words: self.message.as_deref().unwrap_or_default(),
            status,
            is_page: self.is_page,
            says_wait: self.parts.wait.is_some(),
        })
    }

    fn error(&self, status: Option<u16>, said: String) -> ModelError {
        let class =
            self.weigh(status).unwrap_or_else(|| status.map_or(Class::Transient, evidence::by_status));
        match class {
            Class::ContextTooLong => ModelError::ContextTooLong(said),
            Class::Quota => ModelError::QuotaExhausted(said),
            Class::ContentFiltered => ModelError::ContentFiltered(said),
            Class::UnknownModel if matches!(status, Some(404 | 410)) => {
                ModelError::UnknownModel(format!("{said}; check the model's name and the base_url"))
            }
            Class::UnknownModel => ModelError::UnknownModel(said),
            Class::Forbidden => ModelError::Forbidden(said),
            Class::Credentials => ModelError::Credentials(said),
            Class::RateLimited => ModelError::RateLimited(said),
            Class::Transient => ModelError::Server(said),
            Class::BadRequest => ModelError::BadRequest(said),
        }
    }
}

/// The data of events, of a body that is a stream of them.
fn events(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| matches!(byte, b'\n' | b'\r')).filter_map(|line| line.strip_prefix(b"data:"))
}

/// The error in a document that should be an answer, or a part of one; `None` if it says of none. Places that an answer
/// has as well are looked at only where there is no answer.
pub(super) fn failure_in(value: &Value, redactor: &Redactor) -> Option<ProviderError> {
    let refusal = |value: &Value| Some(ProviderError::of(value, redactor));
    if value["type"] == "error" || value["object"] == "error" {
        return refusal(value);
    }
    if is_error(&value["error"]) {
        return refusal(if value["error"].is_object() { &value["error"] } else { value });
    }
    for choice in [&value["choices"][0], &value["candidates"][0]] {
        if is_error(&choice["error"]) {
            return refusal(&choice["error"]);
        }
    }
    if is_code_of_failure(&value["base_resp"]["status_code"]) {
        return refusal(&value["base_resp"]);
    }
    let has_answer = ["choices", "candidates", "content", "delta", "message"].iter().any(|name| {
        matches!(&value[*name], Value::Array(items) if !items.is_empty()) || value[*name].is_object()
    });
    let says = |name: &str| {
        ["message", "msg", "detail", "title", "error_msg"].contains(&name) && value[name].is_string()
    };
    let has_words = value.as_object().is_some_and(|fields| fields.keys().any(|name| says(name)));
    let failed = is_error(&value["errors"])
        || value["success"] == false
        || value["ok"] == false
        || matches!(value["status"].as_str(), Some("error" | "failed" | "failure"))
        || (has_words && (is_code_of_failure(&value["code"]) || is_code_of_failure(&value["status"])));
    (failed && !has_answer).then(|| refusal(value)).flatten()
}

/// Whether an `error` field says that there is one; servers also send `null`, `false`, `0`, `""`,
/// `{}`, `[]`, and objects of these.
pub(super) fn is_error(error: &Value) -> bool {
    match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => {
            !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "none" | "null" | "ok" | "success")
        }
        Value::Object(fields) => fields.iter().any(|(name, value)| match name.as_str() {
            "code" | "status" | "status_code" => is_code_of_failure(value),
            _ => is_error(value),
        }),
        Value::Array(items) => items.iter().any(is_error),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// A code that does not say that all is well.
fn is_code_of_failure(code: &Value) -> bool {
    match code {
        Value::Number(number) => !matches!(number.as_f64(), Some(0.0 | 200.0)),
        Value::String(text) => !matches!(
            text.trim().to_ascii_lowercase().as_str(),
            "" | "0" | "200" | "ok" | "success" | "none" | "null" | "completed"
        ),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
#[path = "error_body_tests.rs"]
mod tests;
