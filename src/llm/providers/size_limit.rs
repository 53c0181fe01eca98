//! Putting JSON together from pieces, within a limit.

use serde_json::{Map, Value};

use super::sse::TooLarge;

/// How much may still be kept, in bytes of JSON, roughly.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeLimit(usize);

impl SizeLimit {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self(max_bytes)
    }

    /// Appends to a string, which begins here if there is none yet.
    pub(super) fn append(&mut self, target: &mut Value, piece: &str) -> Result<(), TooLarge> {
        self.take(piece.len())?;
        if let Value::String(text) = target {
            text.push_str(piece);
        } else {
            *target = Value::String(piece.to_owned());
        }
        Ok(())
    }

    /// Appends to an array, which begins here if there is none yet.
    pub(super) fn push(&mut self, target: &mut Value, item: Value) -> Result<(), TooLarge> {
        self.take(size(&item))?;
        if let Value::Array(items) = target {
            items.push(item);
        } else {
            *target = Value::Array(vec![item]);
        }
        Ok(())
    }

    /// Sets a field, in place of what it was.
    pub(super) fn set(
        &mut self,
        fields: &mut Map<String, Value>,
        name: &str,
        value: Value,
    ) -> Result<(), TooLarge> {
        if let Some(old) = fields.get_mut(name) {
            self.0 = self.0.saturating_add(size(old));
            self.take(size(&value))?;
            *old = value;
        } else {
            self.take(name.len() + size(&value))?;
            fields.insert(name.to_owned(), value);
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<(), TooLarge> {
        self.0 = self.0.checked_sub(bytes).ok_or(TooLarge)?;
        Ok(())
    }
}

/// Bytes as JSON, roughly. As deep as the parser lets a value be, which is not very.
fn size(value: &Value) -> usize {
    // Quotes, comma, colon.
    const FRAME: usize = 4;
    FRAME
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 4,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(size).sum(),
            Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        }
}
