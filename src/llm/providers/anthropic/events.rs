//! A stream of events, put together as one message.

use serde_json::{Map, Value, json};

use crate::llm::providers::dialect::{Assembly, Fault, Progress};
use crate::llm::providers::hearer::Hearer;
use crate::llm::providers::room::Room;

/// Where a block's input is while it comes in pieces of JSON.
const PARTIAL: &str = "partial_json";

/// What has come so far: the message, with the blocks under way in it.
pub(super) struct Events {
    raw: Value,
    room: Room,
    stopped: bool,
}

impl Events {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { raw: Value::Null, room: Room::new(max_bytes), stopped: false }
    }
}

impl Assembly for Events {
    fn json(&mut self, mut event: Value, hearer: &mut Hearer<'_>) -> Result<Progress, Fault> {
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
                message.into_iter().try_for_each(|(name, value)| self.room.set(&mut raw, &name, value))?;
                raw.insert("content".to_owned(), json!([]));
                self.raw = Value::Object(raw);
            }
            "content_block_start" => {
                let block = event["content_block"].take();
                self.start(&event["index"], block, hearer)?;
            }
            "content_block_delta" => {
                self.delta(&event["index"], &event["delta"], hearer)?;
            }
            "content_block_stop" => self.stop(&event["index"]),
            "message_delta" => self.message_delta(&mut event)?,
            "message_stop" => {
                self.stopped = true;
                return Ok(Progress::Ended);
            }
            // `ping`, and whatever is new: the API says that unknown events are to be ignored.
            _ => {}
        }
        Ok(Progress::Goes)
    }

    fn raw(&mut self) -> &mut Value {
        &mut self.raw
    }

    fn is_complete(&self) -> bool {
        self.stopped && self.raw["stop_reason"].is_string()
    }
}

impl Events {
    fn block(&mut self, index: &Value) -> Option<&mut Value> {
        let index = usize::try_from(index.as_u64()?).ok()?;
        self.raw.get_mut("content")?.as_array_mut()?.get_mut(index)
    }

    fn start(&mut self, index: &Value, block: Value, hearer: &mut Hearer<'_>) -> Result<(), Fault> {
        let expected = self.raw["content"].as_array().map(|blocks| blocks.len() as u64);
        if expected.is_none() || index.as_u64() != expected || !block.is_object() {
            return Err(Fault::Malformed("a content block begins out of turn".to_owned()));
        }
        match block["type"].as_str() {
            Some("text") => hearer.text(block["text"].as_str().unwrap_or_default()),
            Some("thinking") => hearer.reasoning(block["thinking"].as_str().unwrap_or_default()),
            Some(_) | None => hearer.begun(),
        }
        Ok(self.room.push(&mut self.raw["content"], block)?)
    }

    fn delta(&mut self, index: &Value, delta: &Value, hearer: &mut Hearer<'_>) -> Result<(), Fault> {
        let mut room = self.room;
        let Some(block) = self.block(index) else {
            return Err(Fault::Malformed("a delta belongs to no content block".to_owned()));
        };
        let piece = |name: &str| delta[name].as_str().unwrap_or_default();
        match delta["type"].as_str().unwrap_or_default() {
            "text_delta" => {
                hearer.text(piece("text"));
                room.append(&mut block["text"], piece("text"))?;
            }
            "thinking_delta" => {
                hearer.reasoning(piece("thinking"));
                room.append(&mut block["thinking"], piece("thinking"))?;
            }
            "input_json_delta" => room.append(&mut block[PARTIAL], piece(PARTIAL))?,
            "signature_delta" => room.append(&mut block["signature"], piece("signature"))?,
            "compaction_delta" => room.append(&mut block["content"], piece("content"))?,
            "citations_delta" => room.push(&mut block["citations"], delta["citation"].clone())?,
            _ => {}
        }
        self.room = room;
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
                self.room.set(raw, &name, value)?;
            }
        }
        let kept = raw.entry("usage").or_insert(json!({}));
        if let (Value::Object(usage), Value::Object(kept)) = (usage, kept) {
            for (name, value) in usage {
                if !value.is_null() {
                    self.room.set(kept, &name, value)?;
                }
            }
        }
        Ok(())
    }
}
