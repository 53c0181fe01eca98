//! Halves of surrogate pairs, as programs send them that cut a text at UTF-16 units: joined where the other half comes in
//! the next piece, else U+FFFD.
//!
//! A string cannot hold a half. From the parser until its text is together, a private character stands for each: plane
//! 16 ends with exactly as many as there are halves. Only streams that have had a half are looked at for them.

use serde_json::Value;

/// What stands for U+D800; the others follow in order.
const FIRST: u32 = 0x10_F800;
/// U+D800.
const FIRST_UNIT: u32 = 0xD800;

/// The character that stands for a half.
pub(super) fn stand_in(unit: u16) -> char {
    char::from_u32(FIRST + (u32::from(unit) & 0x7FF)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The half that a character stands for.
fn half(c: char) -> Option<u16> {
    let offset = u32::from(c).checked_sub(FIRST)?;
    u16::try_from(FIRST_UNIT + offset).ok()
}

fn is_first_half(c: char) -> bool {
    half(c).is_some_and(|unit| unit < 0xDC00)
}

/// Joins the pairs of a text that is complete.
pub(super) fn join(text: &mut String) {
    if text.chars().any(|c| half(c).is_some()) {
        let mut joiner = Joiner::default();
        let mut whole = joiner.push(text);
        whole.push_str(joiner.finish());
        *text = whole;
    }
}

/// The same at any depth of a document.
pub(super) fn join_all(value: &mut Value) {
    match value {
        Value::String(text) => join(text),
        Value::Array(items) => items.iter_mut().for_each(join_all),
        Value::Object(fields) => fields.values_mut().for_each(join_all),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Joins pairs in a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// A first half at the end of the last piece.
    held: Option<u16>,
}

impl Joiner {
    /// What is certain by now.
    pub(super) fn push(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        for c in piece.chars() {
            let before = self.held.take();
            let pair = before.zip(half(c)).map(|(first, second)| char::decode_utf16([first, second]));
            if let Some(Ok(whole)) = pair.and_then(|mut decoded| decoded.next()) {
                out.push(whole);
                continue;
            }
            if before.is_some() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            match half(c) {
                Some(unit) if is_first_half(c) => self.held = Some(unit),
                Some(_) => out.push(char::REPLACEMENT_CHARACTER),
                None => out.push(c),
            }
        }
        out
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) -> &'static str {
        self.held.take().map_or("", |_| "\u{FFFD}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_joined_over_pieces_and_replaced_where_they_stay_alone() {
        let (first, second) = (stand_in(0xD83D).to_string(), stand_in(0xDE00).to_string());
        let cases = [
            (vec![format!("Hi {first}"), format!("{second}!")], "Hi \u{1F600}!"),
            (vec![first.clone(), String::new(), second.clone()], "\u{1F600}"),
            (vec![format!("Hi {first}"), "bye".to_owned()], "Hi \u{FFFD}bye"),
            (vec![format!("{second}{first}")], "\u{FFFD}\u{FFFD}"),
            (vec![format!("{first}{first}{second}")], "\u{FFFD}\u{1F600}"),
            (vec!["plain äöü \u{1F600}".to_owned()], "plain äöü \u{1F600}"),
        ];
        for (pieces, expected) in cases {
            let mut joiner = Joiner::default();
            let mut heard: String = pieces.iter().map(|piece| joiner.push(piece)).collect();
            heard.push_str(joiner.finish());
            assert_eq!(heard, expected);
            let mut whole = pieces.concat();
            join(&mut whole);
            assert_eq!(whole, expected);
        }
    }
}
