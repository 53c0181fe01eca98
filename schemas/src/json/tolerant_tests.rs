#![allow(clippy::unwrap_used)]
use super::*;

fn text(bytes: &[u8]) -> String {
    serde_json::from_str::<String>(&read(bytes).unwrap()).unwrap()
}

fn problem(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_is_json_stays_as_it_is() {
    for plain in
        [r#"{"a": [1e400, -0, 12345678901234567890123]}"#, r#""\u00e9\ud83d\ude00\\ud83d""#, "", "nope"]
    {
        assert!(matches!(read(plain.as_bytes()), Ok(Cow::Borrowed(same)) if same == plain), "{plain}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_where_a_text_begins_and_kept_within_texts() {
    assert_eq!(read(b"\xef\xbb\xbf{}").unwrap(), "{}");
    assert_eq!(text("\u{feff}\"a\u{feff}b\"".as_bytes()), "a\u{feff}b");
    assert_eq!(
        problem("{\"a\": \u{feff}1}"),
        "a byte order mark stands at line 1 column 7; remove it, only the beginning may have one"
    );
}

#[test]
fn half_characters_become_one_replacement_and_halves_that_meet_are_joined() {
    for (written, meant) in [
        (r#""Hi \ud83d""#, "Hi \u{fffd}"),
        (r#""\ude00 Hi""#, "\u{fffd} Hi"),
        (r#""\ud83d\ud83d\ude00\ude00""#, "\u{fffd}😀\u{fffd}"),
        (r#""\uD83D\uDE00""#, "😀"),
        (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
        (r#""\\ud83d""#, "\\ud83d"),
        (r#""\\\ud83d""#, "\\\u{fffd}"),
        (r#""\ud83d\n\u0000""#, "\u{fffd}\n\0"),
    ] {
        assert_eq!(text(written.as_bytes()), meant, "{written}");
    }
    // As Python writes them with errors="surrogatepass".
    assert_eq!(text(b"\"a\xed\xa0\xbdb\""), "a\u{fffd}b");
    assert_eq!(text(b"\"\xed\xa0\xbd\xed\xb8\x80\xed\xb8\x80\""), "😀\u{fffd}");
}

#[test]
fn numbers_that_are_none_are_told_by_name_and_place() {
    assert_eq!(
        problem("{\"metadata\": {\"a\": [1,\n {\"b\": [0, -Infinity]}]}}"),
        "metadata.a[1].b[1] is -Infinity at line 2 column 12, which JSON does not have; send null, a number or a text"
    );
    for name in ["NaN", "Infinity", "+Infinity", "inf", "-nan"] {
        assert!(
            problem(&format!("[{name}]")).starts_with(&format!("[0] is {name} at line 1 column 2")),
            "{name}"
        );
    }
    assert!(problem("NaN").starts_with("the message is NaN"));
    assert!(read(br#"{"NaN": "NaN", "Infinity": ["-Infinity"]}"#).is_ok(), "as texts they are only texts");
}

#[test]
fn a_text_may_be_nested_so_deeply_and_no_deeper() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(nested(MAX_DEPTH).as_bytes()).is_ok());
    assert!(
        problem(&nested(MAX_DEPTH + 1))
            .starts_with("it is nested more than 100 levels deep at line 1 column 101")
    );
    let objects = "{\"a\":".repeat(100_000);
    assert!(problem(&objects).contains("more than 100 levels"));
    let beside = format!("[{}]", vec![nested(MAX_DEPTH - 1); 9].join(","));
    assert!(read(beside.as_bytes()).is_ok(), "many side by side are not deep");
    assert!(read(format!("\"{}\"", "[".repeat(1_000)).as_bytes()).is_ok(), "nor are texts");
}

#[test]
fn other_encodings_are_told() {
    assert_eq!(problem_of(b"\xff\xfe{\0}\0"), "it is UTF-16; send it as UTF-8");
    assert_eq!(
        problem_of(b"{\n \"a\": \"gr\xfcn\"}"),
        "it is not UTF-8 at line 2 column 10; send it as UTF-8"
    );
    assert!(problem_of(b"\"\xed\xa0\"").contains("not UTF-8"), "half of half a character");
}

fn problem_of(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}
