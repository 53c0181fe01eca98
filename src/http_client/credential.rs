//! Secrets that are sent, and their removal from whatever comes back.

use std::fmt;
use std::sync::Arc;

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

    /// The value, to be sent.
    pub(crate) fn expose(&self) -> &str {
        &self.0
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
        if self.0.iter().any(|secret| text.contains(&secret.0)) {
            *text = self.removed(text);
        }
    }

    fn removed(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((at, secret)) = self.find(rest) {
            clean.push_str(&rest[..at]);
            clean.push_str(REDACTED);
            rest = &rest[at + secret.len()..];
        }
        clean.push_str(rest);
        clean
    }

    /// The first secret in `text`; of several that begin there, the longest.
    fn find(&self, text: &str) -> Option<(usize, &str)> {
        let found = self.0.iter().filter_map(|secret| Some((text.find(&secret.0)?, secret.0.as_str())));
        found.min_by_key(|(at, secret)| (*at, std::cmp::Reverse(secret.len())))
    }

    /// Where the end of `text` could be the beginning of a secret.
    fn may_begin_at(&self, text: &str) -> Option<usize> {
        let longest = self.0.iter().map(|secret| secret.0.len()).max()?;
        let from = text.len().saturating_sub(longest - 1);
        text.char_indices().map(|(at, _)| at).skip_while(|at| *at < from).find(|at| {
            self.0.iter().any(|secret| secret.0.len() > text.len() - at && secret.0.starts_with(&text[*at..]))
        })
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

/// Removes secrets from a text that comes in pieces. What could be the beginning of a secret is held back until more
/// is known, so that one that is spread over pieces is found, too.
#[derive(Debug)]
pub(crate) struct Sieve {
    redactor: Arc<Redactor>,
    held: String,
}

impl Sieve {
    pub(crate) fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: String::new() }
    }

    /// Appends to `clean` what is certain.
    pub(crate) fn push(&mut self, piece: &str, clean: &mut String) {
        if self.redactor.0.is_empty() {
            clean.push_str(piece);
            return;
        }
        self.held.push_str(piece);
        let mut done = 0;
        loop {
            let rest = &self.held[done..];
            let may_begin = self.redactor.may_begin_at(rest);
            match self.redactor.find(rest) {
                // A longer secret than the one that is complete may have begun before it, or where it does.
                Some((at, secret)) if may_begin.is_none_or(|begin| begin > at) => {
                    clean.push_str(&rest[..at]);
                    clean.push_str(REDACTED);
                    done += at + secret.len();
                }
                Some(_) | None => {
                    let certain = may_begin.unwrap_or(rest.len());
                    clean.push_str(&rest[..certain]);
                    done += certain;
                    break;
                }
            }
        }
        self.held.drain(..done);
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self, clean: &mut String) {
        clean.push_str(&self.redactor.removed(&self.held));
        self.held.clear();
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
    fn a_secret_in_pieces_is_removed_however_it_is_cut() {
        let redactor = Arc::new(Redactor::new([
            &Credential::new("canary-key"),
            &Credential::new("canary-key-2"),
            &Credential::new("y-2-äöü-other"),
        ]));
        let text = "a canary-key, a canary-key-2 and a canary-key-2-äöü-other, a canary-ke";
        let mut whole = text.to_owned();
        redactor.text(&mut whole);
        assert_eq!(whole, "a ***, a *** and a ***-äöü-other, a canary-ke");
        let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        for first in &ends {
            for second in ends.iter().filter(|second| *second >= first) {
                let (mut sieve, mut clean) = (Sieve::new(Arc::clone(&redactor)), String::new());
                for piece in [&text[..*first], &text[*first..*second], &text[*second..]] {
                    sieve.push(piece, &mut clean);
                }
                sieve.finish(&mut clean);
                assert_eq!(clean, whole, "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn only_what_may_begin_a_secret_is_held_back() {
        let redactor = Arc::new(Redactor::new([&Credential::new("sk-canary")]));
        let (mut sieve, mut clean) = (Sieve::new(redactor), String::new());
        sieve.push("It asks", &mut clean);
        assert_eq!(clean, "It ask");
        sieve.push(" you", &mut clean);
        assert_eq!(clean, "It asks you");
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
