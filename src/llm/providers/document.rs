//! A body that is JSON: one answer, or the events of a stream without their frames, in lines or in an array.

use serde_json::Value;

use super::error_body::failure_in;
use super::halves;
use super::json;
use super::parsed_answer::{Unusable, fields, preview};
use crate::http_client::credential::Redactor;
use crate::http_client::without_bom;

/// What a body has in it.
#[derive(Debug)]
pub(super) enum Documents {
    /// A whole answer.
    Answer(Value),
    /// Events, one after the other.
    Pieces {
        pieces: Vec<Value>,
        /// Whether there are stand-ins for halves of surrogate pairs.
        has_halves: bool,
    },
}

/// Reads a whole body, without the provider's keys, and without an error in it.
pub(super) fn read(
    body: &[u8],
    redactor: &Redactor,
    is_piece: impl Fn(&Value) -> bool,
) -> Result<Documents, Unusable> {
    let body = without_comments(&as_utf8(body));
    if body.trim_ascii().is_empty() {
        return Err(Unusable::Broken("it has no body".to_owned()));
    }
    let (json::Read { value: mut documents, has_halves }, rest) = json::read_all(&body);
    if let Some((error, rest)) = rest {
        // The marker of a stream's end stands behind some documents.
        if documents.is_empty() || !rest.starts_with(b"data:") {
            let begins = preview(&body, redactor);
            return Err(Unusable::Broken(format!("it is not JSON: {error}; it begins {begins:?}")));
        }
    }
    if let [Value::String(text)] = documents.as_slice()
        && let Ok(inner) = json::read(text.as_bytes())
    {
        documents = vec![inner.value];
    }
    if let [Value::Array(_)] = documents.as_slice()
        && let Some(Value::Array(items)) = documents.pop()
    {
        if items.is_empty() || !items.iter().all(Value::is_object) {
            return Err(Unusable::Broken(fields(&Value::Array(items))));
        }
        documents = items;
    }
    for document in &mut documents {
        redactor.json(document);
    }
    if let Some(refusal) = documents.iter().find_map(|document| failure_in(document, redactor)) {
        return Err(Unusable::Said(refusal));
    }
    match documents.as_slice() {
        [one] if !one.is_object() => Err(Unusable::Broken(fields(one))),
        [one] if !is_piece(one) => {
            let mut answer = documents.pop().unwrap_or_default();
            if has_halves {
                halves::join_all(&mut answer);
            }
            Ok(Documents::Answer(answer))
        }
        _ => {
            documents.retain(Value::is_object);
            Ok(Documents::Pieces { pieces: documents, has_halves })
        }
    }
}

/// UTF-16 is known by its byte order mark; everything else is taken for UTF-8, whose mark is left out.
fn as_utf8(body: &[u8]) -> Vec<u8> {
    let units = |of: fn([u8; 2]) -> u16, body: &[u8]| {
        let units: Vec<u16> = body.chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(&units).into_bytes()
    };
    match body {
        [0xFF, 0xFE, rest @ ..] => units(u16::from_le_bytes, rest),
        [0xFE, 0xFF, rest @ ..] => units(u16::from_be_bytes, rest),
        _ => without_bom(body).to_vec(),
    }
}

/// Comments of a stream that kept the connection until the document came.
fn without_comments(body: &[u8]) -> Vec<u8> {
    let mut rest = body.trim_ascii_start();
    while rest.starts_with(b":") {
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        rest = rest[end..].trim_ascii_start();
    }
    rest.to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn read_all(body: &[u8]) -> Result<Documents, Unusable> {
        read(body, &Redactor::default(), |value| value["delta"].is_object())
    }

    #[test]
    fn a_document_is_read_in_any_encoding_and_behind_any_comment() {
        let utf16 = |text: &str, big: bool| -> Vec<u8> {
            let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            std::iter::once(0xFEFF).chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        let text = "{\"a\": \"ä\"}";
        let bodies = [
            text.as_bytes().to_vec(),
            format!("\u{FEFF}{text}").into_bytes(),
            format!(": wait\n\n: wait\r\n{text}\n").into_bytes(),
            format!("{text}\n\ndata: [DONE]\n").into_bytes(),
            format!("[{text}]").into_bytes(),
            json!(text).to_string().into_bytes(),
            utf16(text, false),
            utf16(text, true),
        ];
        for body in bodies {
            let Documents::Answer(answer) = read_all(&body).unwrap() else { panic!("{body:?}") };
            assert_eq!(answer, json!({"a": "ä"}));
        }
    }

    #[test]
    fn events_without_frames_are_events() {
        let piece = json!({"delta": {"content": "x"}});
        for body in [format!("{piece}\n{piece}"), format!("[{piece},\n{piece}]")] {
            let Documents::Pieces { pieces, has_halves } = read_all(body.as_bytes()).unwrap() else {
                panic!("{body}")
            };
            assert_eq!((pieces.len(), has_halves), (2, false));
        }
        let Documents::Pieces { pieces, .. } = read_all(piece.to_string().as_bytes()).unwrap() else {
            panic!()
        };
        assert_eq!(pieces, [piece]);
    }

    #[test]
    fn an_error_anywhere_is_an_error() {
        for body in [
            "{\"error\": \"boom\"}",
            "[{\"error\": {\"message\": \"boom\"}}]",
            "{\"a\": 1}\n{\"error\": \"boom\"}",
        ] {
            assert!(matches!(read_all(body.as_bytes()), Err(Unusable::Said(_))), "{body}");
        }
        for body in ["", " \n", ": wait\n", "[]", "[1]", "3", "{\"a\":", "<html>"] {
            assert!(matches!(read_all(body.as_bytes()), Err(Unusable::Broken(_))), "{body}");
        }
    }
}
