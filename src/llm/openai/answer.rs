//! What is answered with a success status.

use serde_json::Value;
use throughline_actors::ports::model::{CallFacts, ModelAnswer, ModelError};
use throughline_schemas::{FinishReason, Usage};

use super::refusal;
use crate::http_client::credential::Redactor;
use crate::http_client::{text, without_bom};

/// How much of an answer that is not JSON is shown, in characters.
const PREVIEW_CHARS: usize = 80;
/// How many bytes the preview is taken from.
const PREVIEW_BYTES: usize = 4096;

/// A usable answer.
#[derive(Debug)]
pub(super) struct Answer {
    text: String,
    model: Option<String>,
    finish_reason: FinishReason,
    usage: Option<Usage>,
    raw: Value,
}

/// Why an answer with a success status is not usable.
#[derive(Debug)]
pub(super) enum Unusable {
    /// The provider's filter left nothing; trying again would not change that.
    Withheld,
    /// In words.
    Broken { what: String, bytes: usize },
}

impl Unusable {
    pub(super) fn error(self, content_type: &str) -> ModelError {
        match self {
            Self::Withheld => ModelError::ContentFiltered("it left nothing of the answer".to_owned()),
            Self::Broken { what, bytes } => {
                ModelError::BadResponse(format!("{what} ({content_type}, {bytes} bytes)"))
            }
        }
    }
}

impl Answer {
    pub(super) fn read(body: &[u8], redactor: &Redactor) -> Result<Self, Unusable> {
        let broken = |what: String| Unusable::Broken { what, bytes: body.len() };
        if body.is_empty() {
            return Err(broken("it has no body".to_owned()));
        }
        let mut raw: Value = serde_json::from_slice(without_bom(body)).map_err(|error| {
            let begins = preview(body, redactor);
            broken(format!("it is not JSON: {error}; it begins {begins:?}"))
        })?;
        redactor.json(&mut raw);
        if refusal::is_error(&raw["error"]) {
            let said = refusal::Refusal::of(&raw);
            return Err(broken(format!("it is an error with a success status: {}", said.text())));
        }
        let choice = &raw["choices"][0];
        if !choice.is_object() {
            return Err(broken(format!("it has no choices; {}", fields(&raw))));
        }
        let message = &choice["message"];
        let stopped = choice["finish_reason"].as_str();
        let mut finish_reason = finish_reason(stopped);
        let mut text = content(&message["content"]);
        if text.is_empty() {
            if let Some(refusal) = refused(message) {
                text = refusal;
                finish_reason = FinishReason::ContentFilter;
            } else if finish_reason == FinishReason::ContentFilter {
                return Err(Unusable::Withheld);
            } else if !wants_tools(message) {
                let hint = match finish_reason {
                    FinishReason::Length => "; the token limit was reached before any text: raise max_tokens",
                    FinishReason::Stop
                    | FinishReason::ToolCalls
                    | FinishReason::ContentFilter
                    | FinishReason::Other => "",
                };
                let stopped = text::one_line(stopped.unwrap_or("none"), PREVIEW_CHARS);
                return Err(broken(format!("it has no content, finish_reason {stopped}{hint}")));
            }
        }
        Ok(Self {
            text,
            model: raw["model"].as_str().filter(|model| !model.is_empty()).map(str::to_owned),
            finish_reason,
            usage: usage(&raw["usage"]),
            raw,
        })
    }

    /// Completes the answer; `asked` is the model's name where the provider does not name it.
    pub(super) fn with(self, asked: &str, facts: CallFacts) -> ModelAnswer {
        ModelAnswer {
            text: self.text,
            reasoning: None,
            tool_calls: Vec::new(),
            model: self.model.unwrap_or_else(|| asked.to_owned()),
            finish_reason: self.finish_reason,
            finish_reason_raw: None,
            usage: self.usage,
            raw: self.raw,
            facts,
        }
    }
}

/// A string, or the texts of the parts of an array.
fn content(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// The words of a refusal, which stand beside the content or in its parts.
fn refused(message: &Value) -> Option<String> {
    let parts = message["content"].as_array().into_iter().flatten();
    std::iter::once(message)
        .chain(parts)
        .find_map(|holder| holder["refusal"].as_str().filter(|words| !words.is_empty()))
        .map(str::to_owned)
}

fn wants_tools(message: &Value) -> bool {
    message["tool_calls"].as_array().is_some_and(|calls| !calls.is_empty())
        || message["function_call"].is_object()
}

fn finish_reason(said: Option<&str>) -> FinishReason {
    match said {
        Some("stop") => FinishReason::Stop,
        Some("length") => FinishReason::Length,
        Some("tool_calls" | "function_call") => FinishReason::ToolCalls,
        Some("content_filter") => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// Usage counts only if both sides are whole numbers. The parts of a side are never more than the side: whoever
/// subtracts them must not get below zero.
fn usage(usage: &Value) -> Option<Usage> {
    let input_tokens = usage["prompt_tokens"].as_u64()?;
    let output_tokens = usage["completion_tokens"].as_u64()?;
    let cached = usage["prompt_tokens_details"]["cached_tokens"]
        .as_u64()
        // DeepSeek's name for it.
        .or_else(|| usage["prompt_cache_hit_tokens"].as_u64());
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64();
    Some(Usage {
        input_tokens,
        output_tokens,
        cached_input_tokens: cached.unwrap_or(0).min(input_tokens),
        reasoning_tokens: reasoning.unwrap_or(0).min(output_tokens),
        ..Usage::default()
    })
}

/// The beginning of a body that is not JSON.
pub(super) fn preview(body: &[u8], redactor: &Redactor) -> String {
    let mut start = String::from_utf8_lossy(&body[..body.len().min(PREVIEW_BYTES)]).into_owned();
    redactor.text(&mut start);
    text::one_line(&start, PREVIEW_CHARS)
}

/// The shape of a JSON document whose content is none of a log's business.
fn fields(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let names = fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("its fields are: {}", text::one_line(&names, PREVIEW_CHARS))
        }
        Value::Array(_) => "it is an array".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            "it is a single value".to_owned()
        }
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
