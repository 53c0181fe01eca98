//! A whole `GenerateContentResponse`.

use serde_json::Value;
use throughline_actors::ports::model::ToolCall;
use throughline_schemas::{FinishReason, Usage};

use crate::http_client::text;
use crate::llm::providers::finish::Finish;
use crate::llm::providers::parsed_answer::{ParsedAnswer, Unusable, fields, word};
use crate::llm::providers::usage::{Tokens, count};

/// Longest foreign word in a message, in characters.
const MAX_WORD_CHARS: usize = 200;

pub(super) fn read(raw: &Value) -> Result<ParsedAnswer, Unusable> {
    let candidate = &raw["candidates"][0];
    if !candidate.is_object() {
        return Err(match raw["promptFeedback"]["blockReason"].as_str() {
            Some(reason) => {
                let reason = text::one_line(reason, MAX_WORD_CHARS);
                Unusable::Withheld(format!("it refused the prompt ({reason})"))
            }
            None => Unusable::Broken(format!("it has no candidates; {}", fields(raw))),
        });
    }
    let said = candidate["finishReason"].as_str().unwrap_or_default();
    if matches!(said, "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS") {
        let why = candidate["finishMessage"].as_str().unwrap_or("no message");
        let why = text::one_line(why, MAX_WORD_CHARS);
        return Err(Unusable::Unfit(format!("its finishReason is {said}: {why}")));
    }
    let parts = || candidate["content"]["parts"].as_array().into_iter().flatten();
    let texts = |thought: bool| {
        parts().filter(move |part| is_thought(part) == thought).filter_map(|part| part["text"].as_str())
    };
    let tool_calls: Vec<_> = parts().filter_map(tool_call).collect();
    let mut finish = Finish::of(&candidate["finishReason"]);
    if finish.reason == FinishReason::Stop && !tool_calls.is_empty() {
        finish.reason = FinishReason::ToolCalls;
    }
    Ok(ParsedAnswer {
        text: texts(false).collect(),
        reasoning: texts(true).collect(),
        refusal: None,
        tool_calls,
        model: word(&raw["modelVersion"]),
        finish,
        finish_message: word(&candidate["finishMessage"]).map(|words| text::one_line(&words, MAX_WORD_CHARS)),
    })
}

/// Whether a part is of the model's reasoning.
pub(super) fn is_thought(part: &Value) -> bool {
    part["thought"] == true
}

fn tool_call(part: &Value) -> Option<ToolCall> {
    let call = &part["functionCall"];
    Some(ToolCall {
        id: word(&call["id"]).unwrap_or_default(),
        name: word(&call["name"])?,
        arguments: match call.get("args") {
            Some(args) => args.to_string(),
            // In pieces, which have to be asked for.
            None if call["willContinue"] == true => String::new(),
            None => "{}".to_owned(),
        },
    })
}

/// The prompt includes what was cached, not what tools added to it; the candidates exclude the thoughts.
pub(super) fn usage(raw: &Value) -> Option<Usage> {
    let usage = &raw["usageMetadata"];
    let tokens = |name: &str| count(&usage[name]);
    let input = tokens("promptTokenCount")?.checked_add(tokens("toolUsePromptTokenCount").unwrap_or(0))?;
    // A count of zero is left out.
    let reasoning = tokens("thoughtsTokenCount").unwrap_or(0);
    let output = tokens("candidatesTokenCount").unwrap_or(0).checked_add(reasoning)?;
    let cached = tokens("cachedContentTokenCount").unwrap_or(0);
    Some(Tokens { input, cached, cache_write: 0, output, reasoning }.into())
}
