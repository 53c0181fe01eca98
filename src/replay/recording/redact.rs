//! Replacing what people said before it is written to a file.

use bytes::Bytes;
use regex::Regex;
use serde_json::{Value, json};
use throughline_schemas::json::view;

use crate::{bus::nats::StoredEvent, replay::history::History};

/// Stands where something was.
const REDACTED: &str = "[redacted]";
/// The header that names a large body by its hash, from which a short text could be guessed.
const BODY_HEADER: &str = "Throughline-Body";

/// Keys whose values may hold what the user said, whatever object they are in. Messages of prompts hold it, those of
/// failures may quote it, requests to sources have parts of it.
const USER_INPUT: &[&str] =
    &["user_input", "user", "messages", "message", "breaker_cause", "summary", "raw_response", "requests"];
/// The same of what the model said.
const ANSWER: &[&str] = &[
    "text",
    "reasoning",
    "tool_calls",
    "assistant",
    "messages",
    "message",
    "breaker_cause",
    "summary",
    "raw_response",
    "error_body",
];
/// The same of what is known about the user and what they asked for.
const CONTEXT: &[&str] = &["preferences", "recent_turns", "external", "messages", "summary", "metadata"];

/// The parts of the error of a call, which stand beside its text and repeat the words in it.
const ERROR_DETAIL: &str = "error_detail";
/// Those of them that are words.
const WORDS: [&str; 2] = ["message", "breaker_cause"];

/// A rule that is none.
#[derive(Debug, thiserror::Error)]
pub enum RedactionError {
    /// Its name is unknown.
    #[error(
        "--redact {0:?} is no rule; use user_input, answer, context, all, a JSON pointer such as \
         /data/request/metadata, or text:REGEX"
    )]
    Unknown(String),
    /// Its pattern does not compile.
    #[error("--redact {rule:?}: the pattern cannot be used")]
    Pattern {
        /// As it was typed.
        rule: String,
        /// Why.
        #[source]
        source: regex::Error,
    },
}

/// What is replaced. Ids, and times and numbers of other fields, stay.
#[derive(Debug, Clone, Default)]
pub struct Redaction {
    rules: Vec<String>,
    keys: Vec<&'static str>,
    pointers: Vec<String>,
    patterns: Vec<Regex>,
}

impl Redaction {
    /// Reads what was typed.
    pub fn new(rules: &[String]) -> Result<Self, RedactionError> {
        let mut redaction = Self { rules: rules.to_vec(), ..Self::default() };
        for rule in rules {
            match (rule.as_str(), rule.strip_prefix("text:")) {
                ("user_input", _) => redaction.keys.extend(USER_INPUT),
                ("answer", _) => redaction.keys.extend(ANSWER),
                ("context", _) => redaction.keys.extend(CONTEXT),
                ("all", _) => redaction.keys.extend([USER_INPUT, ANSWER, CONTEXT].concat()),
                (_, Some(pattern)) => {
                    let pattern = Regex::new(pattern)
                        .map_err(|source| RedactionError::Pattern { rule: rule.clone(), source })?;
                    redaction.patterns.push(pattern);
                }
                (pointer, None) if pointer.starts_with('/') => redaction.pointers.push(pointer.to_owned()),
                (_, None) => return Err(RedactionError::Unknown(rule.clone())),
            }
        }
        Ok(redaction)
    }

    /// The rules, as they were typed.
    pub fn rules(&self) -> &[String] {
        &self.rules
    }

    /// Replaces in all messages of a workflow.
    #[must_use]
    pub fn apply(&self, history: History) -> History {
        if self.rules.is_empty() {
            return history;
        }
        let events = history.events.into_iter().map(|event| self.event(event)).collect();
        History { events, ..history }
    }

    fn event(&self, mut event: StoredEvent) -> StoredEvent {
        event.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(BODY_HEADER));
        for (_, value) in &mut event.headers {
            *value = self.text(value);
        }
        // What is no JSON object has no fields by which to tell what is whose.
        event.body = match view(&event.body) {
            Ok(mut body) if body.is_object() => {
                self.value(&mut body);
                for pointer in &self.pointers {
                    if let Some(value) = body.pointer_mut(pointer) {
                        blank(value);
                    }
                    blank_words_beside(&mut body, pointer);
                }
                Bytes::from(body.to_string())
            }
            Ok(_) | Err(_) => Bytes::from_static(REDACTED.as_bytes()),
        };
        event
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let hides_words = fields.contains_key(ERROR_DETAIL) && self.keys.contains(&WORDS[0]);
                for (key, value) in fields {
                    // The text of an error repeats words that are replaced in its parts, which are enough for a replay.
                    let repeats_words = hides_words && key == "error" && value.is_string();
                    if repeats_words || self.keys.contains(&key.as_str()) {
                        blank(value);
                    } else {
                        self.value(value);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::String(text) => *text = self.text(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&self, text: &str) -> String {
        self.patterns.iter().fold(text.to_owned(), |text, pattern| {
            pattern.replace_all(&text, regex::NoExpand(REDACTED)).into_owned()
        })
    }
}

/// Replaces the words among the parts of an error whose text a pointer names: who names the text means them, too.
fn blank_words_beside(body: &mut Value, pointer: &str) {
    let call = pointer.strip_suffix("/message").unwrap_or(pointer).strip_suffix("/error");
    let Some(call) = call else { return };
    let Some(detail) = body.pointer_mut(&format!("{call}/{ERROR_DETAIL}")) else { return };
    for part in WORDS {
        if let Some(words) = detail.get_mut(part) {
            blank(words);
        }
    }
}

/// Replaces a value by one of its kind, so that readers still understand the event.
fn blank(value: &mut Value) {
    match value {
        Value::String(text) => REDACTED.clone_into(text),
        Value::Array(items) => items.clear(),
        Value::Object(fields) => fields.clear(),
        Value::Number(number) => {
            *value = if number.is_i64() || number.is_u64() { json!(0) } else { json!(0.0) }
        }
        Value::Bool(_) | Value::Null => {}
    }
}
