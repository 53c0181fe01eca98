//! A stream of events, put together as one message.

use serde_json::{Map, Value, json};

use crate::llm::providers::dialect::{Assembly, Fault, Progress};
use crate::llm::providers::forwarder::Forwarder;
use crate::llm::providers::parsed_answer::word;
use crate::llm::providers::size_limit::SizeLimit;
use crate::llm::providers::usage;

/// Where a block's input is while it comes in pieces of JSON.
const PARTIAL: &str = "partial_json";

/// What has come so far: the message, with the blocks under way in it.
pub(super) struct Events {
    raw: Value,
    limit: SizeLimit,
    /// The number of each block, as the server counts them: some begin at 1, or again at 0, or do not number them.
    numbers: Vec<Option<u64>>,
}

impl Events {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { raw: Value::Null, limit: SizeLimit::new(max_bytes), numbers: Vec::new() }
    }
}

impl Assembly for Events {
    fn json(&mut self, mut event: Value, forwarder: &mut Forwarder<'_>) -> Result<Progress, Fault> {
        // Only the type counts: a name of the event would say the same.
        match event["type"].as_str().unwrap_or_default() {
            "message_start" => {
                // Some proxies begin twice.
                if self.raw["content"].as_array().is_some_and(|blocks| !blocks.is_empty()) {
                    return Err(Fault::Malformed("a second message begins in one answer".to_owned()));
                }
                let Value::Object(message) = event["message"].take() else {
                    return Err(Fault::Malformed("message_start has no message".to_owned()));
                };
                let mut raw = Map::new();
                message.into_iter().try_for_each(|(name, value)| self.limit.set(&mut raw, &name, value))?;
                raw.insert("content".to_owned(), json!([]));
                self.raw = Value::Object(raw);
            }
            "content_block_start" => {
                let block = event["content_block"].take();
                self.start(&event["index"], block, forwarder)?;
            }
            "content_block_delta" => {
                self.delta(&event["index"], &event["delta"], forwarder)?;
            }
            "content_block_stop" => self.stop(&event["index"]),
            "message_delta" => self.message_delta(&mut event)?,
            "message_stop" => return Ok(Progress::Ended),
            // `ping`, and whatever is new: the API says that unknown events are to be ignored.
            _ => {}
        }
        Ok(Progress::Goes)
    }

    fn raw(&mut self) -> &mut Value {
        &mut self.raw
    }

    fn is_finished(&self) -> bool {
        word(&self.raw["stop_reason"]).is_some()
    }
}

impl Events {
    /// The block of this number that began last; without a number, the last block.
    fn block(&mut self, index: &Value) -> Option<&mut Value> {
        let number = index.as_u64();
        let place = match number {
            Some(_) => self.numbers.iter().rposition(|known| *known == number)?,
            None => self.numbers.len().checked_sub(1)?,
        };
        self.raw.get_mut("content")?.as_array_mut()?.get_mut(place)
    }

    fn start(&mut self, index: &Value, block: Value, forwarder: &mut Forwarder<'_>) -> Result<(), Fault> {
        if !block.is_object() || !self.raw["content"].is_array() {
            return Err(Fault::Malformed("a content block begins outside of a message".to_owned()));
        }
        match block["type"].as_str() {
            Some("text") => forwarder.text(block["text"].as_str().unwrap_or_default()),
            Some("thinking") => forwarder.reasoning(block["thinking"].as_str().unwrap_or_default()),
            Some(_) | None => forwarder.begun(),
        }
        self.numbers.push(index.as_u64());
        Ok(self.limit.push(&mut self.raw["content"], block)?)
    }

    /// A block whose beginning was never sent.
    fn start_for(
        &mut self,
        index: &Value,
        delta: &Value,
        forwarder: &mut Forwarder<'_>,
    ) -> Result<(), Fault> {
        let block = match delta["type"].as_str() {
            Some("text_delta") => json!({"type": "text", "text": ""}),
            Some("thinking_delta") => json!({"type": "thinking", "thinking": ""}),
            Some(_) | None => return Err(Fault::Malformed("a delta belongs to no content block".to_owned())),
        };
        self.start(index, block, forwarder)
    }

    fn delta(&mut self, index: &Value, delta: &Value, forwarder: &mut Forwarder<'_>) -> Result<(), Fault> {
        if self.block(index).is_none() {
            self.start_for(index, delta, forwarder)?;
        }
        let mut limit = self.limit;
        let Some(block) = self.block(index) else {
            return Err(Fault::Malformed("a delta belongs to no content block".to_owned()));
        };
        let piece = |name: &str| delta[name].as_str().unwrap_or_default();
        match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => {
                forwarder.text(piece("text"));
                limit.append(&mut block["text"], piece("text"))?;
            }
            "thinking_delta" => {
                forwarder.reasoning(piece("thinking"));
                limit.append(&mut block["thinking"], piece("thinking"))?;
            }
            "input_json_delta" => limit.append(&mut block[PARTIAL], piece(PARTIAL))?,
            "signature_delta" => limit.append(&mut block["signature"], piece("signature"))?,
            "compaction_delta" => limit.append(&mut block["content"], piece("content"))?,
            "citations_delta" => limit.push(&mut block["citations"], delta["citation"].clone())?,
            _ => {}
        }
        self.limit = limit;
        Ok(())
    }

    fn stop(&mut self, index: &Value) {
        let Some(Value::Object(block)) = self.block(index) else { return };
        if let Some(Value::String(partial)) = block.remove(PARTIAL)
            && !partial.is_empty()
        {
            // What the token limit cut is kept as it came.
            let input = serde_json::from_str(&partial).unwrap_or(Value::String(partial));
            block.insert("input".to_owned(), input);
        }
    }

    /// The reason to stop, and usage, which counts from the beginning of the message.
    fn message_delta(&mut self, event: &mut Value) -> Result<(), Fault> {
        let (delta, usage) = (event["delta"].take(), event["usage"].take());
        let Value::Object(raw) = &mut self.raw else {
            return Err(Fault::Malformed("message_delta before message_start".to_owned()));
        };
        if let Value::Object(delta) = delta {
            for (name, value) in delta {
                // Some say null of what was said before.
                if !value.is_null() || !raw.contains_key(&name) {
                    self.limit.set(raw, &name, value)?;
                }
            }
        }
        let kept = raw.entry("usage").or_insert(json!({}));
        // Who counts the input again means its zeros.
        let input = |usage: &Value| usage::count(&usage["input_tokens"]);
        if input(&usage).is_some_and(|count| count > 0 && Some(count) != input(kept))
            && let Value::Object(kept) = kept
        {
            for name in ["cache_read_input_tokens", "cache_creation_input_tokens"] {
                if usage[name].is_number() {
                    kept.remove(name);
                }
            }
        }
        usage::merge(kept, usage, &mut self.limit)?;
        Ok(())
    }
}
