//! An answer in our words, and the one place that decides whether it is one.

use serde_json::Value;
use throughline_actors::ports::model::{
    AnswerFormat, CallFacts, ModelAnswer, ModelError, ModelRequest, ToolCall,
};
use throughline_schemas::{FinishReason, Usage};

use super::error_body::ProviderError;
use super::finish::Finish;
use super::thinking::{self, Parts};
use crate::http_client::credential::Redactor;
use crate::http_client::text;

/// How much of a foreign word or body is shown, in characters.
const PREVIEW_CHARS: usize = 80;
/// How many bytes the preview of a body is taken from.
const PREVIEW_BYTES: usize = 4096;

/// What a dialect has read from an answer.
#[derive(Debug, Default)]
pub(super) struct ParsedAnswer {
    pub text: String,
    /// Empty if there is none.
    pub reasoning: String,
    /// The words of a refusal that stand apart from the text.
    pub refusal: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// The model as the provider names it.
    pub model: Option<String>,
    pub finish: Finish,
    /// What the provider says of its reason to stop.
    pub finish_message: Option<String>,
}

/// Why an answer with a success status is not usable.
#[derive(Debug)]
pub(super) enum Unusable {
    /// The provider's filter left nothing; trying again would not change that.
    Withheld(String),
    /// It says that it failed.
    Said(ProviderError),
    /// In words: it is not what the protocol promises.
    Broken(String),
    /// In words: it is as the protocol has it, and no answer to this request.
    Unfit(String),
    /// In words: the limit on the answer was reached before any of its text.
    LimitUsedUp(String),
}

impl Unusable {
    /// As the port has it. `received` describes what it was about, as in `text/html, 90 bytes`.
    pub(super) fn error(self, received: &str) -> ModelError {
        match self {
            Self::Withheld(why) => ModelError::ContentFiltered(why),
            Self::Said(refusal) => refusal.classify_success(),
            Self::Broken(what) => ModelError::BadResponse(format!("{what} ({received})")),
            Self::Unfit(what) => ModelError::Unfit(format!("{what} ({received})")),
            Self::LimitUsedUp(what) => ModelError::LimitUsedUp(what),
        }
    }
}

impl ParsedAnswer {
    /// Moves reasoning that stands in the text of a whole answer to where it belongs. (Of a stream, the forwarder does.)
    pub(super) fn without_thinking(mut self) -> Self {
        if let Some(Parts { reasoning, text }) = thinking::split(&self.text) {
            self.reasoning.push_str(&reasoning);
            self.text = text;
        }
        self
    }

    /// Whether somebody can do something with it, in the form that was asked for. An answer that the provider itself calls
    /// failed is none, whatever there is of it; nor is one in which nobody could read anything.
    pub(super) fn check(mut self, request: &ModelRequest) -> Result<Self, Unusable> {
        let word = self.finish.raw.as_deref().unwrap_or("none");
        let said = text::one_line(word, PREVIEW_CHARS);
        if self.finish.failed {
            let words = self.finish_message.as_deref().map_or_else(String::new, |words| format!(": {words}"));
            let words = format!("its finish_reason is {said}{words}");
            return Err(match said.to_ascii_lowercase() {
                // The model's mistake, in this answer.
                word if word.contains("malformed") => Unusable::Unfit(words),
                _ => Unusable::Said(ProviderError::in_words(&words).named(&said)),
            });
        }
        if is_blank(&self.text) {
            self.without_text(request, &said)?;
        }
        if matches!(request.format, AnswerFormat::Json(_)) {
            self.unwrap_json()?;
        }
        Ok(self)
    }

    fn without_text(&mut self, request: &ModelRequest, said: &str) -> Result<(), Unusable> {
        if let Some(refusal) = self.refusal.take().filter(|words| !is_blank(words)) {
            self.text = refusal;
            self.finish.reason = FinishReason::ContentFilter;
            return Ok(());
        }
        let nothing = format!("it has no content, finish_reason {said}");
        match self.finish.reason {
            FinishReason::ContentFilter => {
                let words = self.finish_message.take();
                Err(Unusable::Withheld(words.unwrap_or_else(|| "it left nothing of the answer".to_owned())))
            }
            FinishReason::Length if request.takes_tool_calls && !self.tool_calls.is_empty() => Ok(()),
            FinishReason::Length => Err(Unusable::LimitUsedUp(nothing)),
            FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Other
                if self.tool_calls.is_empty() =>
            {
                Err(Unusable::Unfit(nothing))
            }
            FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Other => {
                if request.takes_tool_calls {
                    return Ok(());
                }
                Err(Unusable::Unfit("it has no content but calls of tools, and none was offered".to_owned()))
            }
        }
    }

    /// The document that was asked for, without what models put around it.
    fn unwrap_json(&mut self) -> Result<(), Unusable> {
        match self.finish.reason {
            FinishReason::Stop | FinishReason::Other => {}
            // What was cut or withheld says so itself.
            FinishReason::Length | FinishReason::ToolCalls | FinishReason::ContentFilter => return Ok(()),
        }
        let Err(error) = is_json(&self.text) else { return Ok(()) };
        match json_within(&self.text) {
            Some(document) => {
                self.text = document.to_owned();
                Ok(())
            }
            None => Err(Unusable::Unfit(format!("it is not the JSON that was asked for: {error}"))),
        }
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
            reasoning: (!is_blank(&self.reasoning)).then_some(self.reasoning),
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

fn is_json(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop)
}

/// The JSON document of a text in which it stands in a code fence, or between invisible characters.
fn json_within(text: &str) -> Option<&str> {
    let visible = text.trim_matches(|c: char| is_invisible(c));
    if is_json(visible).is_ok() {
        return Some(visible);
    }
    let (_, fenced) = visible.split_once("```")?;
    // The name of a language may stand behind the fence.
    let begin = fenced.find(['{', '[', '"', '\n']).unwrap_or(0);
    let fenced = fenced.get(begin..)?;
    // A document may have fences in its texts: the last one ends it. A fence that is not closed ends with the text.
    let document = fenced.rsplit_once("```").map_or(fenced, |(document, _)| document).trim();
    is_json(document).is_ok().then_some(document)
}

/// Whether there is nothing in it that anybody could read.
pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(is_invisible)
}

fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
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

#[cfg(test)]
#[path = "parsed_answer_tests.rs"]
mod tests;
