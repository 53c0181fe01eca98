//! What can still be made out in a text that is broken: whose message it is, so that its publisher can be told.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    lexer::{Lexer, Token, TokenKind},
    tolerant::whole_characters,
};

/// Members of a broken object and of its `data`, by name; those of `data` come first. Texts as they are, numbers as they
/// were written. Of several with one name, the first.
pub(crate) fn salvage(bytes: &[u8]) -> BTreeMap<String, String> {
    let text = decode(bytes);
    let mut of_top = BTreeMap::new();
    let mut of_data = BTreeMap::new();
    // What each open object or array is the value of.
    let mut within: Vec<Option<String>> = Vec::new();
    let mut last_text: Option<String> = None;
    let mut key: Option<String> = None;
    for Token { kind, at } in Lexer::new(&text) {
        let written = text.get(at).unwrap_or_default();
        let value = match kind {
            TokenKind::Colon => {
                key = last_text.take();
                continue;
            }
            TokenKind::OpenObject | TokenKind::OpenArray => {
                within.push(key.take());
                last_text = None;
                continue;
            }
            TokenKind::Close => {
                within.pop();
                None
            }
            TokenKind::Comma | TokenKind::Unclosed => None,
            TokenKind::Text => {
                let whole = whole_characters(written);
                serde_json::from_str::<String>(whole.as_deref().unwrap_or(written)).ok()
            }
            TokenKind::Word => is_number(written).then(|| written.to_owned()),
        };
        let Some(name) = key.take() else {
            last_text = value;
            continue;
        };
        let Some(value) = value else { continue };
        match within.as_slice() {
            [_] => of_top.entry(name).or_insert(value),
            [_, Some(parent)] if parent == "data" => of_data.entry(name).or_insert(value),
            _ => continue,
        };
    }
    of_top.extend(of_data);
    of_top
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) && word.parse::<f64>().is_ok()
}

/// The text that the bytes were meant to be.
fn decode(bytes: &[u8]) -> Cow<'_, str> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return String::from_utf8_lossy(bytes),
    };
    let units: Vec<u16> = bytes.chunks_exact(2).skip(1).map(|two| unit([two[0], two[1]])).collect();
    Cow::Owned(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Vec<(String, String)> {
        salvage(bytes).into_iter().collect()
    }

    #[test]
    fn what_stands_before_and_behind_the_break_is_found() {
        let wanted = [("session_id", "s"), ("workflow_id", "w")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        for broken in [
            r#"{"workflow_id":"w","session_id":"s","metadata":{"x":NaN}}"#,
            r#"{"metadata":{"workflow_id":"inner","x":[NaN]},"workflow_id":"w","session_id":"s"}"#,
            r#"{"workflow_id":"w","session_id":"s","user_in"#,
            r#"{"workflow_id":"w","session_id":"s","user_id":"cut off"#,
            r#"{'user_id':'x',"workflow_id":"w","session_id":"s"}"#,
            r#"{"workflow_id":"w",,"session_id":"s"}"#,
            r#"{"specversion":"1.0","data":{"workflow_id":"w","session_id":"s","x":[[}"#,
        ] {
            let found: Vec<_> =
                names(broken.as_bytes()).into_iter().filter(|(name, _)| name != "specversion").collect();
            assert_eq!(found, wanted, "{broken}");
        }
    }

    #[test]
    fn data_decides_and_the_first_of_two_counts() {
        let broken = r#"{"workflow_id":"top","data":{"workflow_id":"w","workflow_id":"later"},"id":7,"x":}"#;
        assert_eq!(salvage(broken.as_bytes())["workflow_id"], "w");
        assert_eq!(salvage(broken.as_bytes())["id"], "7");
    }

    #[test]
    fn other_encodings_are_looked_through() {
        let utf16 = |to: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}{\"workflow_id\":\"wé\"}".encode_utf16().flat_map(to).collect()
        };
        assert_eq!(salvage(&utf16(u16::to_le_bytes))["workflow_id"], "wé");
        assert_eq!(salvage(&utf16(u16::to_be_bytes))["workflow_id"], "wé");
        assert_eq!(salvage(b"{\"x\":\"gr\xfcn\",\"workflow_id\":\"w\"}")["workflow_id"], "w");
    }

    #[test]
    fn rubbish_names_nobody() {
        let deep = "[".repeat(100_000);
        for rubbish in [
            "",
            "workflow_id: w",
            "[\"workflow_id\", \"w\"]",
            "\"workflow_id\":\"w\"",
            "{\"workflow_id\":}",
            &deep,
        ] {
            assert!(names(rubbish.as_bytes()).is_empty(), "{rubbish}");
        }
    }
}
