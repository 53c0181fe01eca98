#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::*;

/// Keys with everything that somebody may escape.
const CANARIES: [&str; 6] =
    ["abc+DEF/ghi==", "can\"ary\\key/1", "schlüssel-canary", "канарейка", "key-🐦-canary", "50%25-off%2Bkey"];

/// Ways of escaping a character in a JSON string that writers really have.
fn json_ways() -> Vec<fn(char) -> String> {
    fn units(c: char) -> String {
        let mut out = String::new();
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04X}").unwrap();
        }
        out
    }
    fn needed(c: char) -> String {
        match c {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            c => c.to_string(),
        }
    }
    vec![
        needed,
        |c| if c == '/' { "\\/".to_owned() } else { needed(c) },
        |c| if c.is_alphanumeric() && c.is_ascii() { c.to_string() } else { units(c) },
        |c| if c.is_ascii() { needed(c) } else { units(c).to_lowercase() },
        units,
    ]
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02x}")
                }
            },
        )
        .collect()
}

/// The key as it is, and escaped once, twice and three times in every order of ways.
fn encodings(key: &str) -> Vec<String> {
    let mut level = vec![key.to_owned()];
    let mut all = level.clone();
    for _ in 0..3 {
        level = level
            .iter()
            .flat_map(|text| {
                let json = json_ways().into_iter().map(|way| text.chars().map(way).collect::<String>());
                json.chain([percent(text)]).collect::<Vec<_>>()
            })
            .collect();
        level.sort_unstable();
        level.dedup();
        all.extend(level.iter().cloned());
    }
    all
}

/// Whatever decodes the text, however often, finds no key in it.
fn has_key(text: &str, key: &str, depth: u32) -> bool {
    let unescaped = serde_json::from_str::<String>(&format!("\"{text}\"")).unwrap_or_default();
    let percent = percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    text.contains(key)
        || (depth > 0
            && [unescaped, percent].iter().any(|next| next != text && has_key(next, key, depth - 1)))
}

#[test]
fn a_secret_is_removed_in_every_encoding_three_levels_deep() {
    for key in CANARIES {
        let redactor = Redactor::new([&Credential::new(key)]);
        let encodings = encodings(key);
        assert!(encodings.len() > 50, "{key}");
        for encoded in encodings {
            assert!(has_key(&encoded, key, 3), "the test encodes as nobody decodes: {encoded}");
            let mut text = format!("Incorrect key: {encoded}. Try another.");
            redactor.text(&mut text);
            assert!(text.contains(REDACTED) && !has_key(&text, key, 3), "{key} as {encoded}: {text}");
        }
    }
}

#[test]
fn what_looks_like_an_escape_and_is_none_stays() {
    let redactor = Redactor::new([&Credential::new("abc+DEF/ghi==")]);
    for text in
        ["C:\\users\\abc", "100 % abc+DEF", "\\u00", "\\uD800\\u0041", "%zz%", "\\", "abc\\u002BDEF", "\\x"]
    {
        let mut same = text.to_owned();
        redactor.text(&mut same);
        assert_eq!(same, text);
    }
}

#[test]
fn a_secret_is_removed_wherever_json_can_hold_it() {
    let redactor = Redactor::new([&Credential::new("canary/key"), &Credential::new("1234567890123")]);
    let mut value: Value = serde_json::from_str(
        r#"{"a":["no", {"b":"key canary\/key!"}],"can\u0061ry/key":1,"c":"canary/","d":1234567890123,"e":123}"#,
    )
    .unwrap();
    redactor.json(&mut value);
    assert_eq!(
        value,
        json!({"a": ["no", {"b": "key ***!"}], "***": 1, "c": "canary/", "d": "***", "e": 123})
    );
}

#[test]
fn a_secret_that_somebody_took_for_latin_1_is_removed() {
    let redactor = Redactor::new([&Credential::new("schlüssel")]);
    let mut text = "schlÃ¼ssel".to_owned();
    redactor.text(&mut text);
    assert_eq!(text, "***");
}

/// The same text in every three pieces.
fn in_pieces(redactor: &Arc<Redactor>, text: &str, whole: &str) {
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    for first in &ends {
        for second in ends.iter().filter(|second| *second >= first) {
            let (mut sieve, mut clean) = (Sieve::new(Arc::clone(redactor)), String::new());
            for piece in [&text[..*first], &text[*first..*second], &text[*second..]] {
                sieve.push(piece, &mut clean);
            }
            sieve.finish(&mut clean);
            assert_eq!(clean, whole, "cut at {first} and {second}");
        }
    }
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
    in_pieces(&redactor, text, &whole);
    for encoded in
        ["\\u0063anary-key, \\", "can\\\\u0061ry-key-2!", "%63anary%2Dkey %6", "\\ud83d\\udc26 %c3%a4"]
    {
        let mut whole = encoded.to_owned();
        redactor.text(&mut whole);
        in_pieces(&redactor, encoded, &whole);
    }
}

#[test]
fn only_what_may_begin_a_secret_is_held_back() {
    let redactor = Arc::new(Redactor::new([&Credential::new("sk-canary")]));
    let (mut sieve, mut clean) = (Sieve::new(redactor), String::new());
    sieve.push("It asks", &mut clean);
    assert_eq!(clean, "It ask");
    sieve.push(" you, 5 %", &mut clean);
    assert_eq!(clean, "It asks you, 5 ");
    sieve.push(" of C:\\new", &mut clean);
    assert_eq!(clean, "It asks you, 5 % of C:\\new");
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
    assert_eq!(format!("{:?}", Redactor::new([&key])), "Redactor(1 secrets)");
}
