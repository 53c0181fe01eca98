//! Secrets that are sent, and their removal from whatever comes back.

use std::fmt;

use reqwest::header::{HeaderValue, InvalidHeaderValue};
use serde_json::Value;

/// Shorter secrets ("none", "EMPTY", as local servers take them) are not looked for in answers: they are ordinary
/// words, and replacing them would falsify the record.
const MIN_REDACTED_BYTES: usize = 8;
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

    /// A header `{prefix}{secret}` that HTTP libraries do not print, either.
    pub(crate) fn header(&self, prefix: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut value = HeaderValue::from_str(&format!("{prefix}{}", self.0))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// Removes the secrets of one peer from what the peer says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor(Vec<Credential>);

impl Redactor {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Credential>) -> Self {
        Self(secrets.into_iter().filter(|secret| secret.0.len() >= MIN_REDACTED_BYTES).cloned().collect())
    }

    pub(crate) fn text(&self, text: &mut String) {
        for Credential(secret) in &self.0 {
            if text.contains(secret) {
                *text = text.replace(secret, REDACTED);
            }
        }
    }

    /// Strings and names at any depth. Works on parsed JSON, where `\/` and `\u0073` no longer hide anything.
    pub(crate) fn json(&self, value: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|field| self.json(field));
                if fields.keys().any(|name| self.0.iter().any(|secret| name.contains(&secret.0))) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(mut name, field)| {
                            self.text(&mut name);
                            (name, field)
                        })
                        .collect();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_removed_wherever_json_can_hold_it() {
        let redactor = Redactor::new([&Credential::new("canary/key")]);
        let mut value: Value = serde_json::from_str(
            r#"{"a":["no", {"b":"key canary\/key!"}],"can\u0061ry/key":1,"c":"canary/"}"#,
        )
        .unwrap_or_default();
        redactor.json(&mut value);
        assert_eq!(value, json!({"a": ["no", {"b": "key ***!"}], "***": 1, "c": "canary/"}));
    }

    #[test]
    fn a_key_that_is_an_ordinary_word_is_left_alone() {
        let redactor = Redactor::new([&Credential::new("none")]);
        let mut text = "none of these".to_owned();
        redactor.text(&mut text);
        assert_eq!(text, "none of these");
    }

    #[test]
    fn a_credential_is_not_printed() {
        let key = Credential::new("canary-key");
        assert_eq!(format!("{key:?}"), "Credential(***)");
        assert_eq!(format!("{:?}", key.header("Bearer ").ok()), "Some(Sensitive)");
        assert!(Credential::new("two\r\nlines").header("").is_err());
    }
}
