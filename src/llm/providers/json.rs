//! JSON as providers send it. What cannot be JSON, and leaves no doubt about what is meant, is read all the same:
//! halves of surrogate pairs, invalid UTF-8 (U+FFFD), `NaN` and `Infinity` and numbers that no double holds (null), line
//! breaks within strings.

use std::borrow::Cow;

use serde_json::Value;

use super::halves;

/// A document, or several.
#[derive(Debug)]
pub(super) struct Read<T> {
    pub value: T,
    /// Whether it has stand-ins for halves of surrogate pairs ([`halves`]).
    pub has_halves: bool,
}

/// What is left when no document follows, and why none does.
pub(super) type Rest = (serde_json::Error, Vec<u8>);

/// One document.
pub(super) fn read(bytes: &[u8]) -> Result<Read<Value>, serde_json::Error> {
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(Read { value, has_halves: false }),
        Err(error) => error,
    };
    let Some((mended, has_halves)) = mend(bytes) else { return Err(error) };
    serde_json::from_str(&mended).map(|value| Read { value, has_halves }).map_err(|_| error)
}

/// One document after the other, as far as they go; with what is left when no document follows, and why.
pub(super) fn read_all(bytes: &[u8]) -> (Read<Vec<Value>>, Option<Rest>) {
    let (values, rest) = each(bytes);
    if rest.is_none() {
        return (Read { value: values, has_halves: false }, None);
    }
    match mend(bytes) {
        Some((mended, has_halves)) => {
            let (value, rest) = each(mended.as_bytes());
            (Read { value, has_halves }, rest)
        }
        None => (Read { value: values, has_halves: false }, rest),
    }
}

fn each(bytes: &[u8]) -> (Vec<Value>, Option<Rest>) {
    let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let mut values = Vec::new();
    loop {
        let from = stream.byte_offset();
        match stream.next() {
            None => return (values, None),
            Some(Ok(value)) => values.push(value),
            Some(Err(error)) => {
                let rest = bytes.get(from..).unwrap_or_default().trim_ascii_start().to_vec();
                return (values, Some((error, rest)));
            }
        }
    }
}

/// The text with what is no JSON replaced, and whether there are stand-ins for halves; `None` if there is nothing to
/// replace.
fn mend(bytes: &[u8]) -> Option<(String, bool)> {
    let text = String::from_utf8_lossy(bytes);
    let mut mender =
        Mender { text: &text, out: String::with_capacity(text.len()), done: 0, has_halves: false };
    mender.run();
    let Mender { mut out, done, has_halves, .. } = mender;
    if done == 0 && matches!(text, Cow::Borrowed(_)) {
        return None;
    }
    out.push_str(&text[done..]);
    Some((out, has_halves))
}

struct Mender<'t> {
    text: &'t str,
    out: String,
    /// How much of the text has been copied.
    done: usize,
    has_halves: bool,
}

impl Mender<'_> {
    fn run(&mut self) {
        let bytes = self.text.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            at = match byte {
                b'"' => self.string(at + 1),
                b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\r' | b'\n' => at + 1,
                _ => self.word(at),
            };
        }
    }

    fn replace(&mut self, from: usize, to: usize, with: &str) {
        self.out.push_str(&self.text[self.done..from]);
        self.out.push_str(with);
        self.done = to;
    }

    /// A string from behind its first quote; returns where it ends.
    fn string(&mut self, mut at: usize) -> usize {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at = self.escape(at),
                0..=0x1F => {
                    self.replace(at, at + 1, &format!("\\u{byte:04x}"));
                    at += 1;
                }
                _ => at += 1,
            }
        }
        at
    }

    fn escape(&mut self, at: usize) -> usize {
        const LENGTH: usize = 6;
        let unit = |at: usize| {
            let digits = self.text.get(at..at + LENGTH)?.strip_prefix("\\u")?;
            u16::from_str_radix(digits, 16).ok()
        };
        let Some(first) = unit(at) else { return at + 2 };
        if !(0xD800..=0xDFFF).contains(&first) {
            return at + LENGTH;
        }
        let second = unit(at + LENGTH);
        if first < 0xDC00 && second.is_some_and(|second| (0xDC00..=0xDFFF).contains(&second)) {
            return at + 2 * LENGTH;
        }
        self.has_halves = true;
        self.replace(at, at + LENGTH, halves::stand_in(first).encode_utf8(&mut [0; 4]));
        at + LENGTH
    }

    /// Anything outside of strings that is no punctuation; returns where it ends.
    fn word(&mut self, from: usize) -> usize {
        let ends = |byte: &u8| {
            matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\r' | b'\n')
        };
        let bytes = self.text.as_bytes();
        let to = bytes[from..].iter().position(ends).map_or(bytes.len(), |length| from + length);
        let word = &self.text[from..to];
        let name = word.trim_start_matches(['-', '+']);
        let is_none = ["nan", "inf", "infinity"].iter().any(|known| name.eq_ignore_ascii_case(known));
        let begins_as_number = name.starts_with(|c: char| c.is_ascii_digit());
        if is_none || (begins_as_number && word.parse::<f64>().is_ok_and(f64::is_infinite)) {
            self.replace(from, to, "null");
        }
        to
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn whole(bytes: &[u8]) -> Value {
        let mut read = read(bytes).unwrap();
        if read.has_halves {
            halves::join_all(&mut read.value);
        }
        read.value
    }

    #[test]
    fn what_is_meant_without_doubt_is_read() {
        let cases: [(&[u8], Value); 8] = [
            (
                br#"{"a": NaN, "b": [-Infinity, 1e999], "c": nan}"#,
                json!({"a": null, "b": [null, null], "c": null}),
            ),
            (br#"{"a": "NaN, \"Infinity\""}"#, json!({"a": "NaN, \"Infinity\""})),
            (br#"{"a": "x \ud83d"}"#, json!({"a": "x \u{FFFD}"})),
            (br#"{"a": "\ude00 x \\ud83d"}"#, json!({"a": "\u{FFFD} x \\ud83d"})),
            (br#"{"a": "\ud83d\ude00 \ud83d\n"}"#, json!({"a": "\u{1F600} \u{FFFD}\n"})),
            (b"{\"a\": \"two\nlines\xff\"}", json!({"a": "two\nlines\u{FFFD}"})),
            (b"{\"a\": NaN\n}", json!({"a": null})),
            (br#"{"a": "\uD83D\u0041"}"#, json!({"a": "\u{FFFD}A"})),
        ];
        for (text, expected) in cases {
            assert_eq!(whole(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn what_is_cut_or_wrong_stays_so() {
        for text in [&br#"{"a": NaN"#[..], br#"{"a": "\ud83d"#, b"{]", b"<html>", b"", br#"{"a": truth}"#] {
            assert!(read(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert!(read("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn one_document_follows_another() {
        let (all, rest) = read_all(b"{\"a\": 1}\n{\"a\": Infinity}\n[2]\n");
        assert_eq!(
            (all.value, rest.is_none()),
            (vec![json!({"a": 1}), json!({"a": null}), json!([2])], true)
        );
        let (all, rest) = read_all(b"{\"a\": 1}\ndata: [DONE]");
        assert_eq!((all.value, rest.unwrap().1), (vec![json!({"a": 1})], b"data: [DONE]".to_vec()));
    }
}
