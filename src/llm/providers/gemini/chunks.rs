//! A stream of `GenerateContentResponse`, put together as one.

use serde_json::{Map, Value, json};

use super::answer;
use crate::llm::providers::dialect::{Assembly, Fault, Progress};
use crate::llm::providers::forwarder::Forwarder;
use crate::llm::providers::parsed_answer::word;
use crate::llm::providers::size_limit::SizeLimit;
use crate::llm::providers::sse::TooLarge;
use crate::llm::providers::usage;

/// What has come so far: the whole form, with one candidate.
pub(super) struct Chunks {
    raw: Value,
    limit: SizeLimit,
}

impl Chunks {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { raw: json!({}), limit: SizeLimit::new(max_bytes) }
    }
}

impl Assembly for Chunks {
    fn json(&mut self, mut event: Value, forwarder: &mut Forwarder<'_>) -> Result<Progress, Fault> {
        let (candidates, usage) = (event["candidates"].take(), event["usageMetadata"].take());
        let Value::Object(raw) = &mut self.raw else { return Ok(Progress::Goes) };
        if let Value::Object(fields) = event {
            for (name, value) in fields {
                if !value.is_null() {
                    self.limit.set(raw, &name, value)?;
                }
            }
        }
        // The last chunk may leave out, or say nothing of, a count that an earlier one had.
        if usage.is_object() {
            usage::merge(raw.entry("usageMetadata").or_insert(Value::Null), usage, &mut self.limit)?;
        }
        let Value::Array(candidates) = candidates else { return Ok(Progress::Goes) };
        let first = |candidate: &Value| candidate["index"].as_u64().unwrap_or(0) == 0;
        if let Some(Value::Object(candidate)) = candidates.into_iter().find(first) {
            self.candidate(candidate, forwarder)?;
        }
        Ok(Progress::Goes)
    }

    fn raw(&mut self) -> &mut Value {
        &mut self.raw
    }

    /// There is no marker: the candidate has its reason to stop, or the prompt was refused.
    fn is_finished(&self) -> bool {
        word(&self.raw["candidates"][0]["finishReason"]).is_some()
            || (self.raw["candidates"].is_null()
                && word(&self.raw["promptFeedback"]["blockReason"]).is_some())
    }
}

impl Chunks {
    fn candidate(
        &mut self,
        candidate: Map<String, Value>,
        forwarder: &mut Forwarder<'_>,
    ) -> Result<(), TooLarge> {
        if self.raw["candidates"].is_null() {
            self.raw["candidates"] = json!([{"index": 0, "content": {"role": "model", "parts": []}}]);
        }
        let Value::Object(kept) = &mut self.raw["candidates"][0] else { return Ok(()) };
        for (name, mut value) in candidate {
            if name == "content" {
                let Some(Value::Array(parts)) = value.get_mut("parts").map(Value::take) else { continue };
                for part in parts {
                    forward(&part, forwarder);
                    add(&mut kept["content"]["parts"], part, &mut self.limit)?;
                }
            } else if !value.is_null() {
                self.limit.set(kept, &name, value)?;
            }
        }
        Ok(())
    }
}

fn forward(part: &Value, forwarder: &mut Forwarder<'_>) {
    match part["text"].as_str() {
        Some(text) if answer::is_thought(part) => forwarder.reasoning(text),
        Some(text) => forwarder.text(text),
        None => forwarder.begun(),
    }
}

/// Plain text goes on where plain text of the same kind was before.
fn add(parts: &mut Value, part: Value, limit: &mut SizeLimit) -> Result<(), TooLarge> {
    let is_plain = |part: &Value| {
        part["text"].is_string()
            && part
                .as_object()
                .is_some_and(|fields| fields.keys().all(|name| name == "text" || name == "thought"))
    };
    let last = parts.as_array_mut().and_then(|parts| parts.last_mut());
    if let (Some(last), Some(piece)) = (last, part["text"].as_str())
        && is_plain(last)
        && is_plain(&part)
        && answer::is_thought(last) == answer::is_thought(&part)
    {
        return limit.append(&mut last["text"], piece);
    }
    limit.push(parts, part)
}
