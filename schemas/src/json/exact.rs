//! JSON texts that are handed on without being read, and looked into without being changed.

use serde_json::{Number, Value};

use super::lexer::{Lexer, Token, TokenKind};

/// The same JSON without blanks between its tokens. Of what is no JSON, the same.
pub fn compact(json: &str) -> String {
    rewritten(json, |_, written, out| out.push_str(written))
}

/// The same JSON in its shortest form that means the same to everybody: no blanks, no escapes that are not needed.
/// Numbers, the order of members and members that are there twice stay as they are.
pub(crate) fn shortest(json: &str) -> String {
    rewritten(json, |kind, written, out| {
        let text = if kind == TokenKind::Text && written.contains('\\') {
            serde_json::from_str::<String>(written).ok()
        } else {
            None
        };
        match text {
            Some(text) => out.push_str(&Value::String(text).to_string()),
            None => out.push_str(written),
        }
    })
}

/// A JSON text as a value, with texts in place of numbers that would change: those of many digits, and those that are out
/// of range, which would be an error.
pub fn view(json: &[u8]) -> Result<Value, serde_json::Error> {
    let Ok(json) = str::from_utf8(json) else { return serde_json::from_slice(json) };
    let held = rewritten(json, |kind, written, out| {
        if kind == TokenKind::Word && is_number(written) && !is_exact(written) {
            // It has nothing to escape.
            out.extend(["\"", written, "\""]);
        } else {
            out.push_str(written);
        }
    });
    serde_json::from_str(&held)
}

/// The same JSON with other texts, keys included. Texts that `change` leaves alone stay as they were written.
pub(crate) fn map_texts(json: &str, change: impl Fn(&str) -> String) -> String {
    rewritten(json, |kind, written, out| {
        let changed = (kind == TokenKind::Text).then(|| {
            let text: String = serde_json::from_str(written).ok()?;
            let changed = change(&text);
            (changed != text).then(|| Value::String(changed).to_string())
        });
        out.push_str(changed.flatten().as_deref().unwrap_or(written));
    })
}

fn rewritten(json: &str, mut write: impl FnMut(TokenKind, &str, &mut String)) -> String {
    let mut out = String::with_capacity(json.len());
    for Token { kind, at } in Lexer::new(json) {
        write(kind, json.get(at).unwrap_or_default(), &mut out);
    }
    out
}

fn is_number(word: &str) -> bool {
    word.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

/// Whether a number keeps its value when it is read.
fn is_exact(written: &str) -> bool {
    let read = serde_json::from_str::<Number>(written).ok().map(|number| number.to_string());
    read.is_some_and(|read| Decimal::of(&read).is_some_and(|read| Decimal::of(written) == Some(read)))
}

/// A decimal number in its only form: digits without zeros around them.
#[derive(PartialEq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(written: &str) -> Option<Self> {
        let unsigned = written.strip_prefix('-');
        let (mantissa, exponent) = match unsigned.unwrap_or(written).split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
            None => (unsigned.unwrap_or(written), 0_i64),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat();
        let trimmed = digits.trim_end_matches('0');
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let exponent = exponent.checked_add(i64::try_from(digits.len() - trimmed.len()).ok()?)?;
        let digits = trimmed.trim_start_matches('0').to_owned();
        let exponent = if digits.is_empty() { 0 } else { exponent };
        Some(Self { negative: unsigned.is_some(), digits, exponent })
    }
}
