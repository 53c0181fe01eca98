//! Texts with NUL characters. PostgreSQL has none in a text, so one is written as U+001A 0 (SUBSTITUTE, which ASCII has
//! for a character that cannot be represented) and U+001A itself twice. Every other text stands as it is.

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

/// The text as it was. What nobody here stored is taken as it stands.
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
    fn what_others_stored_is_taken_as_it_stands() {
        for text in ["\u{1a}", "\u{1a}x", "end\u{1a}"] {
            assert_eq!(from_stored(text), text);
        }
    }
}
