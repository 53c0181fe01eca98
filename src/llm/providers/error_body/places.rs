//! Where the parts of an error stand: in `error`, in `errors[]`, beside it, or in the text of another one.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::http_client::credential::Redactor;
use crate::http_client::{retry_after, text};

/// Longest message that is passed on, in characters.
pub(super) const MAX_MESSAGE_CHARS: usize = 300;
/// Longest code or type that is passed on, in characters.
const MAX_CODE_CHARS: usize = 64;
/// So deep is looked into errors in errors.
const MAX_DEPTH: usize = 8;
/// So many names and so many messages are kept.
const MAX_PARTS: usize = 8;

/// What a provider calls the kind of an error.
const CODES: [&str; 8] =
    ["code", "error_code", "errorCode", "err_code", "status_code", "statusCode", "http_code", "http_status"];
const KINDS: [&str; 6] = ["type", "status", "reason", "error_type", "errorType", "__type"];
/// Where its words stand.
const WORDS: [&str; 17] = [
    "message",
    "msg",
    "Message",
    "status_msg",
    "status_message",
    "error_msg",
    "err_msg",
    "error_message",
    "errorMessage",
    "error_description",
    "errmsg",
    "title",
    "detail",
    "description",
    "faultstring",
    "reason",
    "raw",
];
/// What holds further errors.
const HOLDERS: [&str; 17] = [
    "error",
    "errors",
    "Error",
    "detail",
    "details",
    "metadata",
    "base_resp",
    "innererror",
    "inner_error",
    "cause",
    "upstream_error",
    "upstream",
    "fault",
    "response",
    "body",
    "data",
    "result",
];
/// Which of these may be no more than what is wrong with each field of the request.
const OF_FIELDS: [&str; 3] = ["error", "errors", "detail"];
/// How long to wait, in seconds; and in milliseconds.
const WAITS: [&str; 5] = ["retry_after", "retryAfter", "retry_after_seconds", "retry-after", "reset_after"];
const WAITS_MS: [&str; 3] = ["retry_after_ms", "retryAfterMs", "retry-after-ms"];

/// An error's parts, from the outside in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub code: Option<String>,
    pub kind: Option<String>,
    /// Both, of all errors in the error.
    pub names: Vec<String>,
    /// Statuses of failures.
    pub statuses: Vec<u16>,
    pub messages: Vec<String>,
    pub wait: Option<Duration>,
    /// A quota for a whole day is used up, which only Google's details tell.
    pub is_daily_quota: bool,
}

impl Parts {
    pub(super) fn of(value: &Value, redactor: &Redactor) -> Self {
        let mut gathering = Gathering { redactor, parts: Self::default() };
        gathering.value(value, 0);
        gathering.parts
    }

    /// All words on one line, each once.
    pub(super) fn message(&self) -> Option<String> {
        let mut kept: Vec<&str> = Vec::new();
        for message in &self.messages {
            if !kept.iter().any(|known| known.contains(message.as_str())) {
                kept.push(message);
            }
        }
        (!kept.is_empty()).then(|| text::one_line(&kept.join(": "), MAX_MESSAGE_CHARS))
    }
}

struct Gathering<'r> {
    redactor: &'r Redactor,
    parts: Parts,
}

impl Gathering<'_> {
    fn value(&mut self, value: &Value, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::String(text) => self.text(text, depth),
            Value::Array(items) => items.iter().take(MAX_PARTS).for_each(|item| self.value(item, depth + 1)),
            Value::Object(fields) => self.object(fields, depth),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&mut self, fields: &Map<String, Value>, depth: usize) {
        for (names, of_codes) in [(&CODES[..], true), (&KINDS[..], false)] {
            for value in names.iter().filter_map(|name| fields.get(*name)) {
                self.name(value, of_codes);
            }
        }
        for name in WORDS {
            match fields.get(name) {
                Some(value @ Value::String(said)) => {
                    // A reason is a code, or words.
                    if name != "reason" || said.contains(' ') {
                        self.value(value, depth + 1);
                    }
                }
                Some(value @ (Value::Object(_) | Value::Array(_))) if !HOLDERS.contains(&name) => {
                    self.value(value, depth + 1);
                }
                Some(_) | None => {}
            }
        }
        for name in HOLDERS {
            match fields.get(name) {
                // Texts of these were words above.
                Some(Value::String(_)) if WORDS.contains(&name) => {}
                Some(value) => {
                    let before = (self.parts.messages.len(), self.parts.names.len());
                    self.value(value, depth + 1);
                    if before == (self.parts.messages.len(), self.parts.names.len())
                        && OF_FIELDS.contains(&name)
                    {
                        self.fields(value, depth + 1);
                    }
                }
                None => {}
            }
        }
        self.waits(fields);
        let violations = fields.get("violations").and_then(Value::as_array).into_iter().flatten();
        self.parts.is_daily_quota |= violations
            .filter_map(|violation| violation["quotaId"].as_str())
            .any(|quota| quota.contains("PerDay"));
    }

    /// The texts of unknown fields: `{"model": ["is not known"]}`.
    fn fields(&mut self, error: &Value, depth: usize) {
        for (name, value) in error.as_object().into_iter().flatten().take(MAX_PARTS) {
            let texts = std::iter::once(value).chain(value.as_array().into_iter().flatten());
            for text in texts.filter_map(Value::as_str) {
                self.text(&format!("{name} {text}"), depth + 1);
            }
        }
    }

    fn name(&mut self, value: &Value, is_code: bool) {
        let (name, number) = match value {
            Value::String(text) => (text.clone(), text.trim().parse().ok()),
            Value::Number(number) => (number.to_string(), number.as_u64()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return,
        };
        if let Some(status) = number.and_then(|number| u16::try_from(number).ok())
            && (400..=599).contains(&status)
        {
            self.parts.statuses.push(status);
        }
        let mut name = name;
        self.redactor.text(&mut name);
        let name = text::one_line(&name, MAX_CODE_CHARS);
        // Anthropic's envelope, and what says that all is well.
        if name.is_empty() || name == "error" || (is_code && matches!(number, Some(0 | 200))) {
            return;
        }
        let place = if is_code { &mut self.parts.code } else { &mut self.parts.kind };
        if place.is_none() {
            *place = Some(name.clone());
        }
        if self.parts.names.len() < MAX_PARTS {
            self.parts.names.push(name);
        }
    }

    /// Words, or an error as text.
    fn text(&mut self, said: &str, depth: usize) {
        if said.trim_start().starts_with(['{', '['])
            && let Ok(inner) = serde_json::from_str::<Value>(said)
        {
            let before = self.parts.messages.len();
            self.value(&inner, depth + 1);
            if self.parts.messages.len() > before || self.parts.wait.is_some() {
                return;
            }
        }
        let mut said = said.to_owned();
        self.redactor.text(&mut said);
        let line = text::one_line(&said, MAX_MESSAGE_CHARS);
        if line.is_empty() || self.parts.messages.len() == MAX_PARTS {
            return;
        }
        self.parts.wait = self.parts.wait.or_else(|| retry_after::from_message(&said));
        self.parts.messages.push(line);
    }

    fn waits(&mut self, fields: &Map<String, Value>) {
        // Google's RetryInfo, which its compatible endpoint passes on.
        let google = fields.get("retryDelay").and_then(Value::as_str).and_then(retry_after::from_units);
        let said = |names: &[&str], unit: Duration| {
            names.iter().find_map(|name| retry_after::from_value(fields.get(*name)?, unit))
        };
        let wait = google
            .or_else(|| said(&WAITS_MS, Duration::from_millis(1)))
            .or_else(|| said(&WAITS, Duration::from_secs(1)));
        self.parts.wait = wait.or(self.parts.wait);
    }
}
