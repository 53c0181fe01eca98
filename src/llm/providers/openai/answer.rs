//! A whole answer.

use serde_json::Value;
use throughline_actors::ports::model::ToolCall;
use throughline_schemas::Usage;

use crate::llm::providers::finish::Finish;
use crate::llm::providers::parsed_answer::{ParsedAnswer, Unusable, fields, word};
use crate::llm::providers::usage::{Tokens, first_count};

pub(super) fn read(raw: &Value) -> Result<ParsedAnswer, Unusable> {
    let choice = &raw["choices"][0];
    if !choice.is_object() {
        return Err(Unusable::Broken(format!("it has no choices; {}", fields(raw))));
    }
    let message = &choice["message"];
    Ok(ParsedAnswer {
        text: word(&choice["text"])
            .filter(|_| message.is_null())
            .unwrap_or_else(|| text(&message["content"])),
        reasoning: reasoning(message),
        refusal: refused(message),
        tool_calls: tool_calls(message),
        model: word(&raw["model"]),
        finish: Finish::of(&choice["finish_reason"]),
        finish_message: word(&choice["finish_message"]).or_else(|| word(&raw["message"])),
    })
}

/// A string, or the texts of the parts of an array.
pub(super) fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

/// `reasoning_content` (`DeepSeek`, vLLM, xAI and others), else `reasoning` (Groq, `OpenRouter`, Cerebras), else the
/// thinking among the content's parts (Mistral).
pub(super) fn reasoning(message: &Value) -> String {
    let told = ["reasoning_content", "reasoning"].iter().find_map(|name| word(&message[*name]));
    told.unwrap_or_else(|| {
        let parts = message["content"].as_array().into_iter().flatten();
        parts.map(|part| text(&part["thinking"])).collect()
    })
}

/// The words of a refusal, which stand beside the content or in its parts.
fn refused(message: &Value) -> Option<String> {
    let parts = message["content"].as_array().into_iter().flatten();
    std::iter::once(message).chain(parts).find_map(|holder| word(&holder["refusal"]))
}

/// The old form, one `function_call`, is one without an id.
fn tool_calls(message: &Value) -> Vec<ToolCall> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    let of = |id: &Value, function: &Value| {
        Some(ToolCall {
            id: word(id).unwrap_or_default(),
            name: word(&function["name"])?,
            arguments: arguments(&function["arguments"]),
        })
    };
    let mut calls: Vec<_> = calls.filter_map(|call| of(&call["id"], &call["function"])).collect();
    if calls.is_empty() {
        calls.extend(of(&Value::Null, &message["function_call"]));
    }
    calls
}

/// Text, as the protocol has it; some servers send the JSON itself.
pub(super) fn arguments(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => arguments.to_string(),
    }
}

/// Where usage stands: at the top; in a field of its own in the streams of Groq; in the choice at Moonshot; in the form of
/// Gemini or of Bedrock, which gateways leave as it was.
const PLACES: [&str; 7] = [
    "/usage",
    "/x_groq/usage",
    "/choices/0/usage",
    "/choices/0/message/usage",
    "/usageMetadata",
    "/amazon-bedrock-invocationMetrics",
    "/metadata/usage",
];
const INPUT: [&str; 7] = [
    "/prompt_tokens",
    "/input_tokens",
    "/promptTokens",
    "/inputTokens",
    "/promptTokenCount",
    "/inputTokenCount",
    "/prompt_token_count",
];
const OUTPUT: [&str; 7] = [
    "/completion_tokens",
    "/output_tokens",
    "/completionTokens",
    "/outputTokens",
    "/candidatesTokenCount",
    "/outputTokenCount",
    "/completion_token_count",
];
const TOTAL: [&str; 4] = ["/total_tokens", "/totalTokens", "/totalTokenCount", "/total_token_count"];
/// `DeepSeek`'s name is the second, Moonshot's the third, those of Anthropic and Bedrock follow.
const CACHED: [&str; 8] = [
    "/prompt_tokens_details/cached_tokens",
    "/prompt_cache_hit_tokens",
    "/cached_tokens",
    "/input_tokens_details/cached_tokens",
    "/cache_read_input_tokens",
    "/cacheReadInputTokens",
    "/cacheReadInputTokenCount",
    "/cachedContentTokenCount",
];
const CACHE_WRITE: [&str; 4] = [
    "/prompt_tokens_details/cache_write_tokens",
    "/cache_creation_input_tokens",
    "/cacheWriteInputTokens",
    "/cacheWriteInputTokenCount",
];
const REASONING: [&str; 4] = [
    "/completion_tokens_details/reasoning_tokens",
    "/output_tokens_details/reasoning_tokens",
    "/reasoning_tokens",
    "/thoughtsTokenCount",
];

/// Usage counts only if both sides are whole numbers. Input includes what was cached, output the reasoning.
pub(super) fn usage(raw: &Value) -> Option<Usage> {
    PLACES.iter().find_map(|place| usage_at(raw.pointer(place)?))
}

fn usage_at(usage: &Value) -> Option<Usage> {
    let count = |names: &[&str]| first_count(usage, names);
    let (input, output) = (count(&INPUT)?, count(&OUTPUT)?);
    let (cached, cache_write) = (count(&CACHED).unwrap_or(0), count(&CACHE_WRITE).unwrap_or(0));
    let (reasoning, total) = (count(&REASONING).unwrap_or(0), count(&TOTAL));
    // Some count reasoning, or what was cached, beside the rest; the total gives it away.
    let with_cache = input.checked_add(cached)?.checked_add(cache_write)?;
    let with_reasoning = output.checked_add(reasoning)?;
    let sums = [(input, output), (input, with_reasoning), (with_cache, output), (with_cache, with_reasoning)];
    let told =
        sums.into_iter().find(|(input, output)| input.checked_add(*output) == total && total.is_some());
    // Anthropic's names count beside the input.
    let is_beside = cached > input && count(&["/cache_read_input_tokens"]).is_some();
    let (input, output) = told.unwrap_or((if is_beside { with_cache } else { input }, output));
    // More reasoning than answer cannot be within it, whatever the total says; a little more is an estimate.
    let is_beside = reasoning / 2 > output;
    let output = if is_beside { output.checked_add(reasoning)? } else { output };
    Some(Tokens { input, cached, cache_write, output, reasoning }.into())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
