//! Texts with NUL characters. PostgreSQL has none in a text, so one is written as U+001A 0 (SUBSTITUTE, which ASCII has
//! for a character that cannot be represented) and U+001A itself twice. Every other text stands as it is. The texts in JSON
//! are no exception: there both characters are escapes.

use std::borrow::Cow;

use serde_json::Value;

const SUBSTITUTE: char = '\u{1a}';

/// The text as it is stored.
pub(super) fn to_stored(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', SUBSTITUTE]) {
        return Cow::Borrowed(text);
    }
    let mut stored = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\0' => stored.extend([SUBSTITUTE, '0']),
            SUBSTITUTE => stored.extend([SUBSTITUTE, SUBSTITUTE]),
            c => stored.push(c),
        }
    }
    Cow::Owned(stored)
}

/// The text as it was. What other programs stored is taken as it stands.
pub(super) fn from_stored(stored: &str) -> String {
    let mut text = String::with_capacity(stored.len());
    let mut rest = stored.chars();
    while let Some(c) = rest.next() {
        if c != SUBSTITUTE {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('0') => text.push('\0'),
            Some(SUBSTITUTE) => text.push(SUBSTITUTE),
            other => text.extend([Some(SUBSTITUTE), other].into_iter().flatten()),
        }
    }
    text
}

/// The texts in a JSON value, keys included, as they are stored.
pub(super) fn json_to_stored(value: &Value) -> Value {
    map_texts(value, &|text| to_stored(text).into_owned())
}

/// The texts in a JSON value as they were.
pub(super) fn json_from_stored(value: &Value) -> Value {
    map_texts(value, &from_stored)
}

/// As [`json_to_stored`], of a JSON document of which nothing else is changed.
pub(super) fn source_to_stored(json: &str) -> String {
    map_escapes(json, |escape, stored| {
        match escape.number {
            Some(NUL) => stored.push_str(SUBSTITUTE_ZERO),
            Some(SUBSTITUTE_NUMBER) => stored.extend([escape.whole, escape.whole]),
            Some(_) | None => stored.push_str(escape.whole),
        }
        0
    })
}

/// As [`json_from_stored`], of a JSON document of which nothing else is changed.
pub(super) fn source_from_stored(json: &str) -> String {
    map_escapes(json, |escape, text| {
        let is_substitute = escape.number == Some(SUBSTITUTE_NUMBER);
        if is_substitute && escape.rest.starts_with('0') {
            text.push_str(ESCAPED_NUL);
            return 1;
        }
        text.push_str(escape.whole);
        if is_substitute && number_of(escape.rest) == Some(SUBSTITUTE_NUMBER) { NUMBERED } else { 0 }
    })
}

const NUL: u32 = 0;
const SUBSTITUTE_NUMBER: u32 = SUBSTITUTE as u32;
const ESCAPED_NUL: &str = "\\u0000";
const SUBSTITUTE_ZERO: &str = "\\u001a0";
/// Bytes of an escape such as `\u001a`, and of one such as `\n`.
const NUMBERED: usize = 6;
const PLAIN: usize = 2;

/// An escape in a JSON text, and what comes behind it.
struct Escape<'a> {
    whole: &'a str,
    number: Option<u32>,
    rest: &'a str,
}

/// The number of the escape `\uXXXX` with which a text begins.
fn number_of(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

/// `map` writes what stands in the place of an escape, and says how many bytes behind it go with it. A backslash is
/// nowhere in JSON but at the beginning of an escape.
fn map_escapes(json: &str, map: impl Fn(&Escape<'_>, &mut String) -> usize) -> String {
    let mut mapped = String::with_capacity(json.len());
    let mut rest = json;
    while let Some((before, from)) = rest.find('\\').and_then(|at| rest.split_at_checked(at)) {
        let number = number_of(from);
        let length = if number.is_some() { NUMBERED } else { PLAIN };
        let Some((whole, behind)) = from.split_at_checked(length) else { break };
        mapped.push_str(before);
        let taken = map(&Escape { whole, number, rest: behind }, &mut mapped);
        rest = behind.get(taken..).unwrap_or_default();
    }
    mapped.push_str(rest);
    mapped
}

fn map_texts(value: &Value, map: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(map(text)),
        Value::Array(items) => items.iter().map(|item| map_texts(item, map)).collect(),
        Value::Object(object) => {
            object.iter().map(|(key, value)| (map(key), map_texts(value, map))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_come_back_and_are_stored_without_nul() {
        let texts = [
            "",
            "plain",
            "\0",
            "\0\0",
            "a\0b",
            "\u{1a}",
            "\u{1a}0",
            "\u{1a}\0",
            "\0\u{1a}",
            "0\u{1a}\u{1a}0",
            "é\0表",
            "\\u0000",
        ];
        let stored = texts.map(|text| to_stored(text).into_owned());
        for (text, stored) in texts.iter().zip(&stored) {
            assert!(!stored.contains('\0'), "{text:?}");
            assert_eq!(from_stored(stored), *text);
        }
        let different: std::collections::BTreeSet<_> = stored.iter().collect();
        assert_eq!(different.len(), texts.len(), "two texts are never stored as the same");
        assert_eq!(stored[1], "plain");
    }

    #[test]
    fn json_comes_back_with_its_keys() {
        let value = json!({"a\0": ["\0", 1, null, {"\u{1a}": true}], "": "\\u0000"});
        let stored = json_to_stored(&value);
        assert_eq!(stored, json!({"a\u{1a}0": ["\u{1a}0", 1, null, {"\u{1a}\u{1a}": true}], "": "\\u0000"}));
        assert_eq!(json_from_stored(&stored), value);
    }

    #[test]
    fn a_document_is_stored_as_its_value_is_and_comes_back_to_the_byte() {
        for source in [
            r#"{"a\u0000": ["\u0000", 1.50, {"\u001A":true}], "" : "\\u0000"}"#,
            r#""\\\u0000\u001a0\u001a\u001A\"0""#,
            r#"{"plain":"caf\u00e9 \n","a":[]}"#,
            "null",
        ] {
            let stored = source_to_stored(source);
            assert_eq!(source_from_stored(&stored), source);
            let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
            assert_eq!(value(&stored), json_to_stored(&value(source)), "{stored}");
        }
        assert_eq!(source_to_stored("[1e400, 0.10]"), "[1e400, 0.10]");
        for no_json in ["\\", "\\u00", "é\\u001", "\\é"] {
            assert_eq!(source_to_stored(no_json), no_json);
        }
    }

    #[test]
    fn what_others_stored_is_taken_as_it_stands() {
        for text in ["\u{1a}", "\u{1a}x", "end\u{1a}"] {
            assert_eq!(from_stored(text), text);
        }
    }
}
