//! Reading what programs write that is almost JSON, where there is no doubt what it means:
//! - a byte order mark at the beginning is skipped,
//! - half of a surrogate pair, which JavaScript and Python write after cutting a text within an emoji, becomes U+FFFD.
//!
//! Everything else stays as it is, byte for byte and in its place, so that what a parser says of line and column is true.

use std::borrow::Cow;

use super::{
    lexer::{Lexer, Token, TokenKind},
    problem::{JsonProblem, Place},
};

/// Levels of nesting that a message may have. What an event wraps around it stays below the 128 levels at which readers of
/// JSON stop, ours among them.
pub const MAX_DEPTH: usize = 100;

/// U+FEFF, as UTF-8 writes it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Most characters of a key that an error repeats.
const KEY_CHARS: usize = 64;

/// The text of a message, ready for a parser.
pub fn read(bytes: &[u8]) -> Result<Cow<'_, str>, JsonProblem> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(JsonProblem::Utf16);
    }
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let text = match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(without_encoded_surrogates(bytes)?),
    };
    Walk::new(&text).look()?;
    Ok(match whole_characters(&text) {
        Some(whole) => Cow::Owned(whole),
        None => text,
    })
}

/// Reads surrogates that were encoded as if they were characters: pairs become their character, halves U+FFFD.
fn without_encoded_surrogates(bytes: &[u8]) -> Result<String, JsonProblem> {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let error = match str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return Ok(text);
            }
            Err(error) => error,
        };
        let (valid, broken) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        let Some(first) = encoded_surrogate(broken) else {
            return Err(JsonProblem::NotUtf8(Place::of(bytes, bytes.len() - broken.len())));
        };
        let second = broken.get(3..).and_then(encoded_surrogate);
        let pair = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
        text.push(pair.unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = broken.get(if pair.is_some() { 6 } else { 3 }..).unwrap_or_default();
    }
}

fn encoded_surrogate(bytes: &[u8]) -> Option<u16> {
    match bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f))
        }
        _ => None,
    }
}

/// The same text with U+FFFD for each escape of half a surrogate pair; `None` if it has none.
pub(super) fn whole_characters(text: &str) -> Option<String> {
    if !text.contains("\\u") {
        return None;
    }
    let mut mended: Option<String> = None;
    let texts = Lexer::new(text).filter(|token| matches!(token.kind, TokenKind::Text | TokenKind::Unclosed));
    for token in texts {
        let mut at = token.at.start + 1;
        while at < token.at.end {
            if text.as_bytes()[at] != b'\\' {
                at += 1;
                continue;
            }
            let Some(first) = escaped_unit(text, at) else {
                at += 2;
                continue;
            };
            let pair = escaped_unit(text, at + ESCAPE).map(|second| char::decode_utf16([first, second]));
            at += match pair.and_then(|mut decoded| decoded.next()?.ok()) {
                Some(c) if c.len_utf16() == 2 => 2 * ESCAPE,
                _ if (0xd800..=0xdfff).contains(&first) => {
                    mended.get_or_insert_with(|| text.to_owned()).replace_range(at..at + ESCAPE, "\\ufffd");
                    ESCAPE
                }
                _ => ESCAPE,
            };
        }
    }
    mended
}

/// Bytes of `\uXXXX`.
const ESCAPE: usize = 6;

/// The UTF-16 unit whose escape begins here.
fn escaped_unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix("\\u")?;
    let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    all_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// Where a walk through a text is.
enum Level<'t> {
    Object { key: Option<&'t str> },
    Array { index: usize },
}

/// Looks for what a parser would not say well.
struct Walk<'t> {
    text: &'t str,
    levels: Vec<Level<'t>>,
    last_text: Option<&'t str>,
}

impl<'t> Walk<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, levels: Vec::new(), last_text: None }
    }

    fn look(mut self) -> Result<(), JsonProblem> {
        for Token { kind, at } in Lexer::new(self.text) {
            let place = || Place::of(self.text.as_bytes(), at.start);
            match kind {
                TokenKind::Text => self.last_text = self.text.get(at.start + 1..at.end - 1),
                TokenKind::Unclosed => {}
                TokenKind::OpenObject | TokenKind::OpenArray if self.levels.len() == MAX_DEPTH => {
                    return Err(JsonProblem::TooDeep(place()));
                }
                TokenKind::OpenObject => self.levels.push(Level::Object { key: None }),
                TokenKind::OpenArray => self.levels.push(Level::Array { index: 0 }),
                TokenKind::Close => {
                    self.levels.pop();
                }
                TokenKind::Colon => {
                    if let Some(Level::Object { key }) = self.levels.last_mut() {
                        *key = self.last_text;
                    }
                }
                TokenKind::Comma => {
                    if let Some(Level::Array { index }) = self.levels.last_mut() {
                        *index += 1;
                    }
                }
                TokenKind::Word => {
                    let word = self.text.get(at.clone()).unwrap_or_default();
                    if word.starts_with('\u{feff}') {
                        return Err(JsonProblem::ByteOrderMark(place()));
                    }
                    if is_no_number(word) {
                        let place = place();
                        return Err(JsonProblem::NotANumber {
                            path: self.path(),
                            name: word.to_owned(),
                            place,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for level in &self.levels {
            match level {
                Level::Object { key } => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.extend(key.unwrap_or("?").chars().take(KEY_CHARS));
                }
                Level::Array { index } => path.extend(["[", &index.to_string(), "]"]),
            }
        }
        if path.is_empty() { "the message".to_owned() } else { path }
    }
}

/// What programs write for numbers that are none.
fn is_no_number(word: &str) -> bool {
    let name = word.strip_prefix(['-', '+']).unwrap_or(word);
    ["nan", "inf", "infinity"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
#[path = "tolerant_tests.rs"]
mod tests;
