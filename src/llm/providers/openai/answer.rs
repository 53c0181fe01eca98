//! A whole answer.

use serde_json::Value;
use throughline_actors::ports::model::ToolCall;
use throughline_schemas::{FinishReason, Usage};

use crate::llm::providers::draft::{Draft, Finish, Tokens, Unusable, fields, word};

pub(super) fn read(raw: &Value) -> Result<Draft, Unusable> {
    let choice = &raw["choices"][0];
    if !choice.is_object() {
        return Err(Unusable::Broken(format!("it has no choices; {}", fields(raw))));
    }
    if choice["finish_reason"] == "error" {
        // OpenRouter, where the upstream failed without saying how.
        return Err(Unusable::Broken("its finish_reason is error".to_owned()));
    }
    let message = &choice["message"];
    Ok(Draft {
        text: text(&message["content"]),
        reasoning: reasoning(message),
        refusal: refused(message),
        tool_calls: tool_calls(message),
        model: word(&raw["model"]),
        finish: Finish::of(&choice["finish_reason"], finish_reason),
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

fn finish_reason(said: &str) -> FinishReason {
    match said {
        "stop" => FinishReason::Stop,
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// Usage counts only if both sides are whole numbers. Input includes what was cached, output the reasoning.
pub(super) fn usage(raw: &Value) -> Option<Usage> {
    // Groq's streams have it in a field of their own.
    let usage = [&raw["usage"], &raw["x_groq"]["usage"]].into_iter().find(|usage| usage.is_object())?;
    let input = usage["prompt_tokens"].as_u64()?;
    let output = usage["completion_tokens"].as_u64()?;
    let details = &usage["prompt_tokens_details"];
    // DeepSeek's name for it is the second.
    let cached = [&details["cached_tokens"], &usage["prompt_cache_hit_tokens"]];
    let cached = cached.into_iter().find_map(Value::as_u64).unwrap_or(0);
    let cache_write = details["cache_write_tokens"].as_u64().unwrap_or(0);
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap_or(0);
    // xAI counts reasoning beside the completion; the total gives it away.
    let beside = output.checked_add(reasoning)?;
    let output = if usage["total_tokens"].as_u64() == input.checked_add(beside) { beside } else { output };
    Some(Tokens { input, cached, cache_write, output, reasoning }.into())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
