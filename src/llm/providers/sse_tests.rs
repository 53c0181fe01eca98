#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::path::PathBuf;

use base64::Engine as _;
use serde_json::Value;

use super::*;

/// Name and data of every event.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(String, String)> {
    let mut parser = Parser::new(1 << 20);
    let mut events = Vec::new();
    for piece in pieces {
        let pushed = parser.push(piece, |event| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            events.push((text(event.name), text(event.data)));
            Ok::<_, TooLarge>(())
        });
        pushed.unwrap();
    }
    events
}

/// The conformance cases of eventsource-parser and of the web platform tests (`sse`).
#[test]
fn every_conformance_case_is_parsed_alike_at_every_split() {
    let corpora = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(corpora.join("sse/cases.jsonl")) else {
        eprintln!("left out: no sse/cases.jsonl (set THROUGHLINE_CORPORA)");
        return;
    };
    let (mut cases, mut splits) = (0, 0);
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let decode = |chunk: &Value| {
            base64::engine::general_purpose::STANDARD.decode(chunk.as_str().unwrap()).unwrap()
        };
        let chunks: Vec<Vec<u8>> = case["chunks_b64"].as_array().unwrap().iter().map(decode).collect();
        let expected: Vec<(String, String)> = case["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                (event["event"].as_str().unwrap().to_owned(), event["data"].as_str().unwrap().to_owned())
            })
            .collect();
        let name = &case["name"];
        let stream = chunks.concat();
        assert_eq!(parse(chunks.iter().map(Vec::as_slice)), expected, "{name}, as given");
        assert_eq!(parse([stream.as_slice()]), expected, "{name}, in one piece");
        assert_eq!(parse(stream.chunks(1)), expected, "{name}, byte by byte");
        for at in 1..stream.len() {
            let (first, second) = stream.split_at(at);
            assert_eq!(parse([first, second]), expected, "{name}, cut at {at}");
        }
        cases += 1;
        splits += stream.len() + 2;
    }
    eprintln!("{cases} cases at {splits} splits");
    assert_eq!(cases, 23);
}

#[test]
fn an_event_without_its_empty_line_is_there_at_the_end_of_the_stream() {
    let mut parser = Parser::new(100);
    let mut data = Vec::new();
    let pushed = parser.push(b"data: one\n\ndata: two\ndata: three", |event| {
        data.push(event.data.to_vec());
        Ok::<_, TooLarge>(())
    });
    pushed.unwrap();
    let finished = parser.finish(|event| {
        data.push(event.data.to_vec());
        Ok::<_, TooLarge>(())
    });
    finished.unwrap();
    assert_eq!(data, [b"one".to_vec(), b"two\nthree".to_vec()]);
}

#[test]
fn a_line_an_event_and_what_is_no_event_have_limits() {
    let push = |parser: &mut Parser, piece: &[u8]| parser.push(piece, |_| Ok::<_, TooLarge>(()));
    // A line without an end, in small pieces and at once.
    let mut parser = Parser::new(1000);
    assert!((0..100).all(|_| push(&mut parser, b"0123456789").is_ok()));
    assert_eq!(push(&mut parser, b"0"), Err(TooLarge));
    assert_eq!(push(&mut Parser::new(1000), &[b'x'; 1001]), Err(TooLarge));
    // An event without an end.
    let mut parser = Parser::new(1000);
    assert!((0..91).all(|_| push(&mut parser, b"data: 0123456789\n").is_ok()));
    assert_eq!(push(&mut parser, b"data: 0123456789\n"), Err(TooLarge));
    // Comments and lines of no known kind are not kept.
    let mut parser = Parser::new(1000);
    for _ in 0..10_000 {
        push(&mut parser, b": still there\n\n{\"unknown\n\n").unwrap();
    }
    assert_eq!(parser.stray().len(), MAX_STRAY_BYTES);
    assert!(parser.line.is_empty() && parser.data.is_empty());
}
