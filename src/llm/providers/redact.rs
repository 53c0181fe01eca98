//! The last step before a provider's words leave the adapter: its keys are removed again, now that all is decoded.

use serde_json::Value;
use throughline_actors::ports::model::ModelError;
use throughline_schemas::{MAX_DEPTH, event::generation::ToolCall};

use super::parsed_answer::ParsedAnswer;
use crate::http_client::credential::Redactor;

/// What stands for an inner part of a raw answer that is nested too deep.
const TOO_DEEP: &str = "[left out: nested too deep]";

impl ParsedAnswer {
    /// Without the provider's keys.
    pub(super) fn redacted(mut self, redactor: &Redactor) -> Self {
        let finish = self.finish.raw.iter_mut();
        let words = [&mut self.text, &mut self.reasoning].into_iter();
        words
            .chain(&mut self.refusal)
            .chain(&mut self.model)
            .chain(finish)
            .for_each(|text| redactor.text(text));
        for ToolCall { id, name, arguments } in &mut self.tool_calls {
            redactor.text(id);
            redactor.text(name);
            redactor.text(arguments);
        }
        self
    }
}

/// The answer as it came, without the provider's keys, and with a note in place of what is nested too deep: what an event
/// wraps around it must stay readable, and the answer itself, which was paid for, is not lost for its form.
pub(super) fn recordable(mut raw: Value, redactor: &Redactor) -> Value {
    redactor.json(&mut raw);
    cut(&mut raw, MAX_DEPTH);
    raw
}

fn cut(value: &mut Value, levels: usize) {
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => *value = TOO_DEEP.into(),
        Value::Array(items) => items.iter_mut().for_each(|item| cut(item, levels - 1)),
        Value::Object(fields) => fields.values_mut().for_each(|field| cut(field, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The error without the provider's keys.
pub(super) fn redacted(mut error: ModelError, redactor: &Redactor) -> ModelError {
    match &mut error {
        ModelError::Credentials(said)
        | ModelError::Forbidden(said)
        | ModelError::RateLimited(said)
        | ModelError::LimitUsedUp(said)
        | ModelError::BadRequest(said)
        | ModelError::QuotaExhausted(said)
        | ModelError::UnknownModel(said)
        | ModelError::ContextTooLong(said)
        | ModelError::ContentFiltered(said)
        | ModelError::Server(said)
        | ModelError::Unreachable(said)
        | ModelError::CutShort(said)
        | ModelError::BadResponse(said)
        | ModelError::Unfit(said) => redactor.text(said),
        ModelError::TimedOut(_) | ModelError::TooLarge(_) => {}
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_answer_keeps_what_every_later_reader_can_read() {
        let nested = |levels: usize| (0..levels).fold(Value::from("x"), |inner, _| Value::from(vec![inner]));
        let depth = |mut value: &Value| {
            let mut levels = 0;
            while let Some(inner) = value.get(0) {
                (value, levels) = (inner, levels + 1);
            }
            (levels, value.clone())
        };
        for levels in [MAX_DEPTH - 1, MAX_DEPTH] {
            assert_eq!(recordable(nested(levels), &Redactor::default()), nested(levels));
        }
        let cut = recordable(nested(MAX_DEPTH + 1), &Redactor::default());
        assert_eq!(depth(&cut), (MAX_DEPTH, TOO_DEEP.into()));
    }
}
