//! A stream of `chat.completion.chunk`, put together as one `chat.completion`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::answer;
use crate::llm::providers::dialect::{Assembly, Fault, Progress};
use crate::llm::providers::forwarder::Forwarder;
use crate::llm::providers::parsed_answer::{is_blank, word};
use crate::llm::providers::size_limit::SizeLimit;
use crate::llm::providers::sse::TooLarge;
use crate::llm::providers::usage;

/// What has come so far: the whole form, with one choice.
pub(super) struct Chunks {
    raw: Value,
    limit: SizeLimit,
    /// Whether any text has come that is not a refusal.
    has_content: bool,
}

impl Chunks {
    pub(super) fn new(max_bytes: usize) -> Self {
        let raw = json!({"object": "chat.completion", "choices": []});
        Self { raw, limit: SizeLimit::new(max_bytes), has_content: false }
    }
}

impl Assembly for Chunks {
    fn json(&mut self, mut event: Value, forwarder: &mut Forwarder<'_>) -> Result<Progress, Fault> {
        let choices = event["choices"].take();
        let Value::Object(raw) = &mut self.raw else { return Ok(Progress::Goes) };
        if let Value::Object(fields) = event {
            for (name, value) in fields {
                match name.as_str() {
                    "object" => {}
                    "usage" if value.is_object() => {
                        usage::merge(raw.entry(name).or_insert(Value::Null), value, &mut self.limit)?;
                    }
                    // A message beside the choices says what the model said of a failure.
                    _ if value.is_null() => {}
                    _ => self.limit.set(raw, &name, value)?,
                }
            }
        }
        let Value::Array(choices) = choices else { return Ok(Progress::Goes) };
        // One answer was asked for. Azure's first chunk has none.
        let Some(Value::Object(choice)) =
            choices.into_iter().find(|choice| choice["index"].as_u64().unwrap_or(0) == 0)
        else {
            return Ok(Progress::Goes);
        };
        if self.raw["choices"][0].is_null() {
            self.raw["choices"] = json!([{"index": 0, "message": {"role": "assistant", "content": null},
                "finish_reason": null}]);
        }
        self.choice(choice, forwarder)?;
        Ok(Progress::Goes)
    }

    fn raw(&mut self) -> &mut Value {
        &mut self.raw
    }

    fn is_finished(&self) -> bool {
        word(&self.raw["choices"][0]["finish_reason"]).is_some()
    }
}

impl Chunks {
    fn choice(&mut self, choice: Map<String, Value>, forwarder: &mut Forwarder<'_>) -> Result<(), TooLarge> {
        let (mut delta, mut whole) = (Value::Null, Value::Null);
        if let Some(kept) = self.raw["choices"][0].as_object_mut() {
            for (name, value) in choice {
                match name.as_str() {
                    "delta" => delta = value,
                    // The whole message, which some servers send as their only event, others after all of its pieces.
                    "message" => whole = value,
                    // The older API's form.
                    "text" if value.is_string() => whole = json!({"content": value}),
                    // As large as the text many times over, and nobody asks for them.
                    "logprobs" => {}
                    "usage" if value.is_object() => {
                        usage::merge(kept.entry(name).or_insert(Value::Null), value, &mut self.limit)?;
                    }
                    _ if value.is_null() || value == "" || value == "null" => {}
                    _ => self.limit.set(kept, &name, value)?,
                }
            }
        }
        let is_text = |whole: &Value| whole.as_object().is_some_and(|fields| fields.len() == 1);
        let delta = match delta {
            Value::Object(fields) if !fields.is_empty() => Value::Object(fields),
            _ if forwarder.first().is_none() || is_text(&whole) => whole,
            Value::Object(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                return Ok(());
            }
        };
        forwarder.reasoning(&answer::reasoning(&delta));
        let text = match &delta["content"] {
            Value::String(text) => Cow::Borrowed(text.as_str()),
            content @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => Cow::Owned(answer::text(content)),
        };
        self.has_content |= !is_blank(&text);
        forwarder.text(&text);
        // The words of a refusal are what there is to read where there is nothing else.
        if !self.has_content
            && let Some(refusal) = delta["refusal"].as_str()
        {
            forwarder.text(refusal);
        }
        if let Value::Object(delta) = delta {
            self.delta(delta, forwarder)?;
        }
        Ok(())
    }

    fn delta(&mut self, delta: Map<String, Value>, forwarder: &mut Forwarder<'_>) -> Result<(), TooLarge> {
        let limit = &mut self.limit;
        let Some(message) = self.raw["choices"][0]["message"].as_object_mut() else { return Ok(()) };
        for (name, value) in delta {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("role", value) => limit.set(message, "role", value)?,
                ("tool_calls", Value::Array(calls)) => {
                    forwarder.begun();
                    let kept = message.entry("tool_calls").or_insert(json!([]));
                    calls.into_iter().try_for_each(|call| tool_call(kept, &call, limit))?;
                }
                ("function_call", Value::Object(call)) => {
                    forwarder.begun();
                    let kept = message.entry("function_call").or_insert(json!({"name": "", "arguments": ""}));
                    function(kept, &Value::Object(call), limit)?;
                }
                ("content", Value::Array(parts)) => {
                    let content = message.entry("content").or_insert(Value::Null);
                    if content.is_string() {
                        let text = content.take();
                        *content = json!([{"type": "text", "text": text}]);
                    }
                    parts.into_iter().try_for_each(|part| content_part(content, part, limit))?;
                }
                ("content", Value::String(piece)) => {
                    let content = message.entry("content").or_insert(Value::Null);
                    if content.is_array() {
                        content_part(content, json!({"type": "text", "text": piece}), limit)?;
                    } else {
                        limit.append(content, &piece)?;
                    }
                }
                (_, Value::String(piece)) => {
                    limit.append(message.entry(name).or_insert(Value::Null), &piece)?;
                }
                (_, Value::Array(items)) => {
                    let kept = message.entry(name).or_insert(json!([]));
                    items.into_iter().try_for_each(|item| limit.push(kept, item))?;
                }
                (_, value) => limit.set(message, &name, value)?,
            }
        }
        Ok(())
    }
}

/// Text goes on where text was before.
fn content_part(content: &mut Value, part: Value, limit: &mut SizeLimit) -> Result<(), TooLarge> {
    let last = content.as_array_mut().and_then(|parts| parts.last_mut());
    if let (Some(last), Some(piece)) = (last, part["text"].as_str())
        && last["type"] == part["type"]
        && last["text"].is_string()
    {
        return limit.append(&mut last["text"], piece);
    }
    limit.push(content, part)
}

/// Pieces of one call have its `index`; some servers leave it out and send whole calls, or repeat the id.
fn tool_call(kept: &mut Value, call: &Value, limit: &mut SizeLimit) -> Result<(), TooLarge> {
    let (Value::Array(calls), Value::Object(fields)) = (&mut *kept, call) else { return Ok(()) };
    let id = word(&call["id"]);
    let same = |other: &Value| match (call["index"].as_u64(), &id) {
        (Some(index), _) => other["index"].as_u64() == Some(index),
        (None, Some(id)) => other["id"] == *id,
        (None, None) => true,
    };
    // Some servers number all calls 0.
    let place = calls.iter().rposition(same).filter(|place| !is_another(&calls[*place], call));
    let Some(known) = place.and_then(|place| calls.get_mut(place)) else {
        // With an empty name and arguments, so that both are appended to.
        let mut new = fields.clone();
        new.insert("function".to_owned(), json!({"name": "", "arguments": ""}));
        limit.push(kept, new.into())?;
        let Some(new) = kept.as_array_mut().and_then(|calls| calls.last_mut()) else { return Ok(()) };
        return function(&mut new["function"], &call["function"], limit);
    };
    if let (Some(id), Some(known)) = (id, known.as_object_mut())
        && word(known.get("id").unwrap_or(&Value::Null)).is_none()
    {
        limit.set(known, "id", id.into())?;
    }
    function(&mut known["function"], &call["function"], limit)
}

/// Whether a piece with the number of a call that is known begins another one: it has another id, or it has a name where the
/// known one is complete.
fn is_another(known: &Value, piece: &Value) -> bool {
    if let (Some(known), Some(id)) = (word(&known["id"]), word(&piece["id"])) {
        return known != id;
    }
    let (known, piece) = (&known["function"], &piece["function"]);
    let Some((known_name, name)) = word(&known["name"]).zip(word(&piece["name"])) else { return false };
    let is_complete =
        || known["arguments"].as_str().is_some_and(|text| serde_json::from_str::<Value>(text).is_ok());
    let begins = || piece["arguments"].as_str().is_some_and(|text| text.trim_start().starts_with('{'));
    (known_name != name || begins()) && is_complete()
}

/// The name comes once, or again and again; the arguments come in pieces.
fn function(kept: &mut Value, piece: &Value, limit: &mut SizeLimit) -> Result<(), TooLarge> {
    let Value::Object(kept) = kept else { return Ok(()) };
    let is_named = kept.get("name").and_then(word).is_some();
    let mut field = |name: &str, piece: &str| limit.append(kept.entry(name).or_insert(Value::Null), piece);
    if !is_named {
        field("name", piece["name"].as_str().unwrap_or_default())?;
    }
    field("arguments", &answer::arguments(&piece["arguments"]))
}
