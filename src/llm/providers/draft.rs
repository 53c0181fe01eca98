//! An answer in our words, and what makes one usable.

use serde_json::Value;
use throughline_actors::ports::model::{AnswerFormat, CallFacts, ModelAnswer, ModelError, ToolCall};
use throughline_schemas::{FinishReason, Usage};

use super::refusal::{Refusal, is_error};
use crate::http_client::credential::Redactor;
use crate::http_client::{text, without_bom};

/// How much of a foreign word or body is shown, in characters.
const PREVIEW_CHARS: usize = 80;
/// How many bytes the preview of a body is taken from.
const PREVIEW_BYTES: usize = 4096;

/// What a dialect has read from an answer.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub text: String,
    /// Empty if there is none.
    pub reasoning: String,
    /// The words of a refusal that stand apart from the text.
    pub refusal: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// The model as the provider names it.
    pub model: Option<String>,
    pub finish: Finish,
}

/// Why the model stopped.
#[derive(Debug)]
pub(super) struct Finish {
    pub reason: FinishReason,
    /// In the provider's word.
    pub raw: Option<String>,
}

impl Default for Finish {
    fn default() -> Self {
        Self { reason: FinishReason::Other, raw: None }
    }
}

impl Finish {
    /// The provider's word (an empty one is none) and what its table makes of it.
    pub(super) fn of(said: &Value, table: impl FnOnce(&str) -> FinishReason) -> Self {
        match said.as_str().filter(|word| !word.is_empty()) {
            Some(word) => Self { reason: table(word), raw: Some(word.to_owned()) },
            None => Self::default(),
        }
    }
}

/// Why an answer with a success status is not usable.
#[derive(Debug)]
pub(super) enum Unusable {
    /// The provider's filter left nothing; trying again would not change that.
    Withheld(String),
    /// It says that it failed.
    Said(Refusal),
    /// In words: it is not what the protocol promises.
    Broken(String),
    /// In words: it is as the protocol has it, and no answer to this request.
    Unfit(String),
}

impl Unusable {
    /// As the port has it. `received` describes what it was about, as in `text/html, 90 bytes`.
    pub(super) fn error(self, received: &str) -> ModelError {
        match self {
            Self::Withheld(why) => ModelError::ContentFiltered(why),
            Self::Said(refusal) => refusal.classify_success(),
            Self::Broken(what) => ModelError::BadResponse(format!("{what} ({received})")),
            Self::Unfit(what) => ModelError::Unfit(format!("{what} ({received})")),
        }
    }
}

impl Draft {
    /// Whether somebody can do something with it: an answer without text, that asks for no tool, is none.
    pub(super) fn check(mut self, format: &AnswerFormat) -> Result<Self, Unusable> {
        if self.text.is_empty() {
            if let Some(refusal) = self.refusal.take().filter(|words| !words.is_empty()) {
                self.text = refusal;
                self.finish.reason = FinishReason::ContentFilter;
            } else if self.finish.reason == FinishReason::ContentFilter {
                return Err(Unusable::Withheld("it left nothing of the answer".to_owned()));
            } else if self.tool_calls.is_empty() {
                let hint = match self.finish.reason {
                    FinishReason::Length => "; the token limit was reached before any text: raise max_tokens",
                    FinishReason::Stop
                    | FinishReason::ToolCalls
                    | FinishReason::ContentFilter
                    | FinishReason::Other => "",
                };
                let said = text::one_line(self.finish.raw.as_deref().unwrap_or("none"), PREVIEW_CHARS);
                return Err(Unusable::Unfit(format!("it has no content, finish_reason {said}{hint}")));
            }
        }
        let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(&self.text);
        match (format, self.finish.reason) {
            // What was cut or withheld says so itself.
            (AnswerFormat::Json(_), FinishReason::Stop | FinishReason::Other) => {
                if let Err(error) = is_json() {
                    return Err(Unusable::Unfit(format!("it is not the JSON that was asked for: {error}")));
                }
            }
            (
                AnswerFormat::Json(_),
                FinishReason::Length | FinishReason::ToolCalls | FinishReason::ContentFilter,
            )
            | (AnswerFormat::Text, _) => {}
        }
        Ok(self)
    }

    /// Completes the answer; `asked` is the model's name where the provider does not name it.
    pub(super) fn answer(
        self,
        asked: &str,
        usage: Option<Usage>,
        raw: Value,
        facts: CallFacts,
    ) -> ModelAnswer {
        ModelAnswer {
            text: self.text,
            reasoning: (!self.reasoning.is_empty()).then_some(self.reasoning),
            tool_calls: self.tool_calls,
            model: self.model.unwrap_or_else(|| asked.to_owned()),
            finish_reason: self.finish.reason,
            finish_reason_raw: self.finish.raw,
            usage,
            raw,
            facts,
        }
    }
}

/// A whole body as JSON without the provider's keys, and without an error in it.
pub(super) fn parse(body: &[u8], redactor: &Redactor) -> Result<Value, Unusable> {
    if body.is_empty() {
        return Err(Unusable::Broken("it has no body".to_owned()));
    }
    let mut raw: Value = serde_json::from_slice(without_bom(body)).map_err(|error| {
        let begins = preview(body, redactor);
        Unusable::Broken(format!("it is not JSON: {error}; it begins {begins:?}"))
    })?;
    redactor.json(&mut raw);
    if is_error(&raw["error"]) || is_error(&raw[0]["error"]) {
        return Err(Unusable::Said(Refusal::of(&raw)));
    }
    if !raw.is_object() {
        return Err(Unusable::Broken(fields(&raw)));
    }
    Ok(raw)
}

/// What a provider says of tokens, both sides as [`Usage`] has them. The parts of a side are never more than the side:
/// whoever subtracts them must not get below zero.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl From<Tokens> for Usage {
    fn from(Tokens { input, cached, cache_write, output, reasoning }: Tokens) -> Self {
        let cached = cached.min(input);
        Self {
            input_tokens: input,
            output_tokens: output,
            cached_input_tokens: cached,
            cache_write_input_tokens: cache_write.min(input - cached),
            reasoning_tokens: reasoning.min(output),
        }
    }
}

/// A string that is there and not empty.
pub(super) fn word(value: &Value) -> Option<String> {
    value.as_str().filter(|word| !word.is_empty()).map(str::to_owned)
}

/// The beginning of a body that is not what was expected.
pub(super) fn preview(body: &[u8], redactor: &Redactor) -> String {
    let mut start = String::from_utf8_lossy(&body[..body.len().min(PREVIEW_BYTES)]).into_owned();
    redactor.text(&mut start);
    text::one_line(&start, PREVIEW_CHARS)
}

/// The shape of a JSON document whose content is none of a log's business.
pub(super) fn fields(value: &Value) -> String {
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
