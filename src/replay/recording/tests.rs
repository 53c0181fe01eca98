#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde_json::json;
use throughline_schemas::{
    Timestamp, WorkflowId,
    recording::{FORMAT, Header, MAX_LINE_BYTES, Prompt, VERSION},
};

use super::{Reader, RecordingError, Redaction, Writer};
use crate::{bus::nats::StoredEvent, replay::history::History};

fn header() -> Header {
    let prompt = Prompt { id: "p".into(), system: "s".into(), data: "d".into(), hash: "h".into() };
    Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        created_at: Timestamp::from_unix_ms(1),
        namespace: "n".to_owned(),
        selection: "all workflows".to_owned(),
        configuration_id: "c".to_owned(),
        configuration: json!({}),
        prompt,
        redacted: Vec::new(),
    }
}

fn history(bodies: &[&[u8]]) -> History {
    let events = (1..).zip(bodies).map(|(sequence, body)| StoredEvent {
        sequence,
        subject: "n.v1.user_input_received".to_owned(),
        stored_at: Timestamp::from_unix_ms(1_234),
        headers: vec![("A".to_owned(), "b".to_owned())],
        body: Bytes::copy_from_slice(body),
    });
    History { workflow: WorkflowId::new("w").unwrap(), events: events.collect() }
}

fn written(history: History) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    writer.write(history).unwrap();
    writer.finish().unwrap().0
}

fn read(file: &[u8]) -> Result<Vec<StoredEvent>, RecordingError> {
    let mut reader = Reader::new(file)?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_message()? {
        events.push(event);
    }
    assert_eq!(reader.trailer().unwrap().messages, events.len() as u64);
    Ok(events)
}

fn unzipped(file: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    GzDecoder::new(file).read_to_end(&mut text).unwrap();
    text
}

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text).unwrap();
    out.finish().unwrap()
}

const BODIES: [&[u8]; 6] = [br#"{"a":1.0,"a":2}"#, b"\xff\x00", b"", b"null", b"{\n}", " é".as_bytes()];

#[test]
fn what_is_written_is_read_byte_for_byte() {
    assert_eq!(read(&written(history(&BODIES))).unwrap(), history(&BODIES).events);
    assert!(read(&written(history(&[]))).unwrap().is_empty());
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = written(history(&BODIES));
    for end in 0..file.len() {
        assert!(read(&file[..end]).is_err(), "{end} of {}", file.len());
    }
    let text = unzipped(&file);
    let last = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    let error = read(&zipped(&text[..=last])).unwrap_err();
    assert!(matches!(error, RecordingError::Truncated { line: 8 }), "{error}");
}

#[test]
fn a_changed_byte_is_noticed() {
    let file = written(history(&BODIES));
    // Bytes 3 to 9 are flags, time and system of the gzip header, which say nothing about the content.
    for at in (0..3).chain(10..file.len()) {
        let mut file = file.clone();
        file[at] ^= 1;
        assert!(read(&file).is_err(), "{at} of {}", file.len());
    }
    let text = String::from_utf8(unzipped(&file)).unwrap().replace("1.0", "1.1");
    assert!(matches!(read(&zipped(text.as_bytes())), Err(RecordingError::Checksum { line: 8 })));
}

#[test]
fn what_is_none_is_named() {
    assert!(matches!(read(b"{}"), Err(RecordingError::NotGzip)));
    assert!(matches!(read(&zipped(b"{}\n")), Err(RecordingError::NotRecording)));
    let newer = format!(r#"{{"format":"{FORMAT}","version":2,"whatever":1}}"#);
    assert!(matches!(read(&zipped(format!("{newer}\n").as_bytes())), Err(RecordingError::Version(2))));
    let mut long = vec![b' '; MAX_LINE_BYTES + 2];
    long.push(b'\n');
    assert!(matches!(read(&zipped(&long)), Err(RecordingError::TooLong { line: 1 })));
    let mut surplus = unzipped(&written(history(&BODIES)));
    surplus.extend(b"{}\n");
    assert!(matches!(read(&zipped(&surplus)), Err(RecordingError::Surplus { line: 9 })));
}

#[test]
fn rules_replace_and_leave_the_rest() {
    let rules = ["user_input", "text:[0-9]{4}", "/data/x"].map(str::to_owned);
    let body = br#"{"data":{"request":{"user_input":"secret"},"x":{"y":"z"},"note":"pin 1234"},"id":"i"}"#;
    let redacted = Redaction::new(&rules).unwrap().apply(history(&[body, b"plain secret"]));
    let first: serde_json::Value = serde_json::from_slice(&redacted.events[0].body).unwrap();
    let expected = json!({
        "data": {"request": {"user_input": "[redacted]"}, "x": {}, "note": "pin [redacted]"}, "id": "i"
    });
    assert_eq!(first, expected);
    assert_eq!(&redacted.events[1].body[..], b"[redacted]");
    for bad in ["input", "", "text:("] {
        assert!(Redaction::new(&[bad.to_owned()]).is_err(), "{bad}");
    }
}

#[test]
fn the_words_of_an_error_are_replaced_wherever_they_stand() {
    let attempt = json!({
        "error": "the provider failed: secret", "error_code": "server",
        "error_detail": {"message": "secret", "wait_ms": 7, "breaker_cause": "secret"},
    });
    let call = json!({
        "error": {"code": "breaker_open", "message": "orders: secret"},
        "error_detail": {"breaker_cause": "secret", "wait_ms": 7},
    });
    let event = json!({"data": {"attempt_log": [attempt], "external": {"orders": {"failed_calls": [call]}}}});
    let attempt = ["/data/attempt_log/0/error"].as_slice();
    let source = ["/data/external/orders/failed_calls/0/error/message"].as_slice();
    for (rules, left) in
        [(["user_input"].as_slice(), 0), (&["answer"], 0), (&["text:secret"], 0), (attempt, 2), (source, 3)]
    {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let body = event.to_string();
        let redacted = Redaction::new(&rules).unwrap().apply(history(&[body.as_bytes()]));
        let text = std::str::from_utf8(&redacted.events[0].body).unwrap();
        assert_eq!(text.matches("secret").count(), left, "{rules:?}: {text}");
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value["data"]["attempt_log"][0]["error_detail"]["wait_ms"], json!(7));
        assert_eq!(value["data"]["attempt_log"][0]["error_code"], json!("server"));
    }
}
