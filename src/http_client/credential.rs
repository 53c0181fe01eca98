//! Secrets that are sent, and their removal from whatever comes back.

mod encoded;
mod sieve;

use std::fmt;

use reqwest::header::{HeaderValue, InvalidHeaderValue};
use serde_json::Value;
use throughline_schemas::Document;

use encoded::{Found, look};
pub(crate) use sieve::Sieve;

/// Shorter secrets ("none", "EMPTY", as local servers take them) are not looked for in answers: they are ordinary
/// words, and replacing them would falsify the record.
pub(crate) const MIN_REDACTED_BYTES: usize = 8;
/// What stands where a secret was.
const REDACTED: &str = "***";

/// The value of a secret, to be sent and never shown: `Debug` prints `***`, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(String);

impl Credential {
    /// Takes the value as it is sent.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value, for the one call that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// A header `{prefix}{secret}` that HTTP libraries do not print, either.
    pub(crate) fn header(&self, prefix: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(&format!("{prefix}{}", self.0))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The value as somebody reads it who takes the bytes of a header for Latin-1.
    fn as_latin_1(&self) -> Option<String> {
        (!self.0.is_ascii()).then(|| self.0.bytes().map(char::from).collect())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// Removes the secrets of one peer from what the peer says, also where they are escaped as JSON or in percent, each up to
/// three times over: a gateway may put an error that it got as text into an error of its own, and a reader that decodes that
/// later must not find the secret.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    secrets: Vec<String>,
    /// Bytes with which a secret can begin, as it is or escaped.
    begins: Vec<u8>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Credential>) -> Self {
        let long = secrets.into_iter().filter(|secret| secret.0.len() >= MIN_REDACTED_BYTES);
        let secrets: Vec<String> =
            long.flat_map(|secret| std::iter::once(secret.0.clone()).chain(secret.as_latin_1())).collect();
        let firsts = secrets.iter().filter_map(|secret| secret.bytes().next());
        let begins = firsts.chain(encoded::ESCAPES).collect();
        Self { secrets, begins }
    }

    pub(crate) fn text(&self, text: &mut String) {
        if let Some(clean) = self.removed(text) {
            *text = clean;
        }
    }

    /// The text without secrets; none if it has none.
    fn removed(&self, text: &str) -> Option<String> {
        let mut clean = String::new();
        let (mut at, mut done) = (0, 0);
        while at < text.len() {
            match self.look(text, at).end {
                Some(end) => {
                    clean.push_str(&text[done..at]);
                    clean.push_str(REDACTED);
                    (at, done) = (end, end);
                }
                None => at += 1,
            }
        }
        (done > 0).then(|| clean + &text[done..])
    }

    /// Whether a secret is, or could begin, at this place; of several the longest.
    fn look(&self, text: &str, at: usize) -> Found {
        let begins = text.as_bytes().get(at).is_some_and(|byte| self.begins.contains(byte));
        if begins { look(&self.secrets, text.as_bytes(), at) } else { Found::default() }
    }

    fn has(&self, text: &str) -> bool {
        (0..text.len()).any(|at| self.look(text, at).end.is_some())
    }

    /// The same of a document, which stays as it was written where it has no secret.
    pub(crate) fn document(&self, document: Document) -> Document {
        if !self.has(document.as_str()) {
            return document;
        }
        let clean = document.map_texts(|text| self.removed(text).unwrap_or_else(|| text.to_owned()));
        if !self.has(clean.as_str()) {
            return clean;
        }
        // A number, or what only all of it together looks like.
        let mut value = clean.view().clone();
        self.json(&mut value);
        value.into()
    }

    /// Strings, numbers and names at any depth. Works on parsed JSON, where one level of escapes is gone.
    pub(crate) fn json(&self, value: &mut Value) {
        if self.secrets.is_empty() {
            return;
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.json(field));
                if fields.keys().any(|name| self.has(name)) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(mut name, field)| {
                            self.text(&mut name);
                            (name, field)
                        })
                        .collect();
                }
            }
            // A key may be nothing but digits, and somebody may take it for a number.
            Value::Number(number) => {
                if self.has(&number.to_string()) {
                    *value = Value::String(REDACTED.to_owned());
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "credential/tests.rs"]
mod tests;
