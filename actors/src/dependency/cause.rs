//! Why a dependency failed, in one line that is fit for logs, metrics and readiness.

use std::{error::Error, fmt::Write, iter::successors, sync::Arc};

use crate::ports::Classify;

/// Longest text of a cause, in bytes.
pub const CAUSE_BYTES: usize = 500;
/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Whatever is assigned to one of these is not repeated.
const SECRET_NAMES: [&str; 7] = ["password", "passwd", "pwd", "secret", "token", "api_key", "apikey"];

/// Why a dependency failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// For a machine: one of a bounded set of words.
    pub class: &'static str,
    /// For a person: the error and the errors behind it, on one line, without secrets.
    pub text: Arc<str>,
}

impl Cause {
    /// Of an error.
    pub fn of<E: Classify>(error: &E) -> Self {
        Self { class: error.class(), text: error_chain(error).into() }
    }
}

/// An error and its sources on one line, cut to [`CAUSE_BYTES`], without control characters and without what looks like
/// a secret. A source that an earlier text contains is not repeated.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = String::new();
    for error in successors(Some(error), |error| (*error).source()) {
        let said = error.to_string();
        if text.contains(&said) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&said);
    }
    let mut line = String::with_capacity(text.len().min(CAUSE_BYTES));
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        hide(word, &mut line);
        if line.len() > CAUSE_BYTES {
            break;
        }
    }
    cut(line)
}

/// Appends a word without its secrets: what is assigned to a secret's name, and the user part of a URL.
fn hide(word: &str, line: &mut String) {
    if let Some((scheme, rest)) = word.split_once("://")
        && let Some((_, host)) = rest.rsplit_once('@')
    {
        // Writing to a string does not fail.
        let _ = write!(line, "{scheme}://{HIDDEN}@{host}");
        return;
    }
    for part in word.split_inclusive(['&', '?', ';', ',']) {
        match part.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret(name) => {
                let _ = write!(line, "{name}={HIDDEN}");
                line.extend(value.chars().last().filter(|last| matches!(last, '&' | '?' | ';' | ',')));
            }
            Some(_) | None => line.push_str(part),
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}

fn cut(mut line: String) -> String {
    const ELLIPSIS: &str = "...";
    if line.len() > CAUSE_BYTES {
        let mut end = CAUSE_BYTES - ELLIPSIS.len();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push_str(ELLIPSIS);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] Option<Box<dyn Error>>);

    #[test]
    fn the_errors_behind_an_error_are_told_once() {
        let inner = Outer("database or disk is full (code 13)", None);
        let middle = Outer("the driver says: database or disk is full (code 13)", Some(Box::new(inner)));
        let outer = Outer("saving", Some(Box::new(middle)));
        assert_eq!(error_chain(&outer), "saving: the driver says: database or disk is full (code 13)");
    }

    #[test]
    fn a_cause_is_one_short_line_without_secrets() {
        let long = Outer("one\ntwo\u{1b}[31m\tthree", Some("ü".repeat(600).into()));
        let text = error_chain(&long);
        assert!(text.len() <= CAUSE_BYTES && text.ends_with("..."), "{text}");
        assert!(text.starts_with("one two [31m three: ü"), "{text}");
        for (text, expected) in [
            ("at postgres://eve:hunter2@db:5432/x now", "at postgres://***@db:5432/x now"),
            ("host=db password=hunter2 user=eve", "host=db password=*** user=eve"),
            ("https://h/p?x=1&api_key=hunter2&y=2", "https://h/p?x=1&api_key=***&y=2"),
            ("PGPASSWORD=hunter2", "PGPASSWORD=***"),
        ] {
            assert_eq!(error_chain(&Outer(text, None)), expected);
        }
    }
}
