//! A whole message.

use serde_json::Value;
use throughline_actors::ports::model::ToolCall;
use throughline_schemas::{FinishReason, Usage};

use crate::http_client::text;
use crate::llm::providers::finish::Finish;
use crate::llm::providers::parsed_answer::{ParsedAnswer, Unusable, fields, is_blank, word};
use crate::llm::providers::usage::{Tokens, count};

/// Longest explanation of a refusal that is passed on, in characters.
const MAX_EXPLANATION_CHARS: usize = 300;

pub(super) fn read(raw: &Value) -> Result<ParsedAnswer, Unusable> {
    let Some(blocks) = raw["content"].as_array() else {
        return Err(Unusable::Broken(format!("it has no content; {}", fields(raw))));
    };
    let of = |kind: &'static str| blocks.iter().filter(move |block| block["type"] == kind);
    let joined = |kind, field: &str| of(kind).filter_map(|block| block[field].as_str()).collect::<String>();
    let text = joined("text", "text");
    let finish = Finish::of(&raw["stop_reason"]);
    if is_blank(&text) && finish.reason == FinishReason::ContentFilter {
        let explanation =
            raw["stop_details"]["explanation"].as_str().unwrap_or("the model refused to answer");
        return Err(Unusable::Withheld(text::one_line(explanation, MAX_EXPLANATION_CHARS)));
    }
    Ok(ParsedAnswer {
        text,
        reasoning: joined("thinking", "thinking"),
        refusal: None,
        tool_calls: of("tool_use").filter_map(tool_call).collect(),
        model: word(&raw["model"]),
        finish,
        finish_message: word(&raw["stop_details"]["explanation"]),
    })
}

fn tool_call(block: &Value) -> Option<ToolCall> {
    let input = &block["input"];
    Some(ToolCall {
        id: word(&block["id"]).unwrap_or_default(),
        name: word(&block["name"])?,
        // A stream that was cut by the token limit leaves half of the JSON, as text.
        arguments: input.as_str().map_or_else(|| input.to_string(), str::to_owned),
    })
}

/// Input tokens exclude what was written to and read from the cache; ours include both.
pub(super) fn usage(raw: &Value) -> Option<Usage> {
    let usage = &raw["usage"];
    let tokens = |name: &str| count(&usage[name]).unwrap_or(0);
    let input = count(&usage["input_tokens"])?;
    let output = count(&usage["output_tokens"])?;
    let cached = tokens("cache_read_input_tokens");
    let cache_write = tokens("cache_creation_input_tokens");
    let input = input.checked_add(cache_write)?.checked_add(cached)?;
    let reasoning = count(&usage["output_tokens_details"]["thinking_tokens"]).unwrap_or(0);
    Some(Tokens { input, cached, cache_write, output, reasoning }.into())
}
