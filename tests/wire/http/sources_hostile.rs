//! Data sources that are slow, broken or hostile.

use std::time::Duration;

use tokio::time::Instant;

use serde_json::json;
use throughline_actors::ports::source::{FetchCall, FetchError, Sources};
use throughline_schemas::{Document, MAX_DEPTH};

use super::server::{Server, Step, answer, chunked, json, partial};
use super::sources::{call, sources};

async fn fetch(steps: impl Into<Vec<Step>>) -> Result<Document, FetchError> {
    let server = Server::start().await;
    server.script(steps);
    sources().fetch(&call(server.url("/"))).await
}

#[tokio::test]
async fn the_time_limit_covers_the_whole_call() {
    let drip = |text: &str| Step::Drip(text.as_bytes().to_vec(), Duration::from_millis(20));
    let stories: [Vec<Step>; 4] = [
        vec![Step::Hang],
        vec![Step::Send(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()), Step::Hang],
        vec![partial(100, "{\"a\":"), Step::Hang],
        vec![partial(100, ""), drip(&" ".repeat(100))],
    ];
    for steps in stories {
        let server = Server::start().await;
        server.script(steps.clone());
        let timeout = Duration::from_millis(150);
        let start = Instant::now();
        let result = sources().fetch(&FetchCall { timeout, ..call(server.url("/")) }).await;
        assert_eq!(result, Err(FetchError::TimedOut(timeout)), "{steps:?}");
        assert!(start.elapsed() >= timeout, "{steps:?}");
    }
}

#[tokio::test]
async fn no_more_is_read_than_allowed() {
    // A length above the cap is refused although not one byte of the body ever comes.
    for length in [1001, 1 << 30, 1 << 62] {
        assert_eq!(
            fetch([partial(length, ""), Step::Hang]).await,
            Err(FetchError::TooLarge(1000)),
            "{length}"
        );
    }
    // A body without a length is cut off, and its sender notices.
    let server = Server::start().await;
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    server.script([chunked(), Step::Endless(chunk.into_bytes())]);
    assert_eq!(sources().fetch(&call(server.url("/"))).await, Err(FetchError::TooLarge(1000)));
    server.abandoned().await;
    // Pieces add up: 3 × 300 bytes and a document of 100 are exactly enough, one byte more is not.
    let piece = format!("12c\r\n{}\r\n", " ".repeat(300)).into_bytes();
    let pieces = |last: &str| {
        let last = format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len()).into_bytes();
        vec![
            chunked(),
            Step::Send(piece.clone()),
            Step::Send(piece.clone()),
            Step::Send(piece.clone()),
            Step::Send(last),
        ]
    };
    assert_eq!(fetch(pieces(&format!("{:>100}", "[7]"))).await, Ok(json!([7]).into()));
    assert_eq!(fetch(pieces(&format!("{:>101}", "[7]"))).await, Err(FetchError::TooLarge(1000)));
}

#[tokio::test]
async fn a_broken_connection_is_no_data() {
    let stories: [Vec<Step>; 7] = [
        vec![Step::Close],
        vec![Step::Reset],
        vec![Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec()), Step::Close],
        // Complete JSON, but not all that was promised.
        vec![partial(100, "{\"a\":1}"), Step::Close],
        vec![partial(100, "{\"a\":1}"), Step::Reset],
        vec![chunked(), Step::Send(b"7\r\n{\"a\":1}\r\n".to_vec()), Step::Close],
        vec![Step::Send(b"+OK POP3 ready\r\n\r\n".to_vec()), Step::Hang],
    ];
    for steps in stories {
        let result = fetch(steps.clone()).await;
        assert!(matches!(result, Err(FetchError::Unreachable(_))), "{steps:?}: {result:?}");
    }
}

#[tokio::test]
async fn garbage_is_no_data() {
    let nested = |levels| json("[".repeat(levels) + &"]".repeat(levels));
    let stories: [(&str, Step); 10] = [
        ("empty", json("")),
        ("cut short", json("{\"a\":")),
        ("two documents", json("{} {}")),
        ("a page", answer(200, &[("content-type", "text/html")], "<html>canary</html>")),
        ("not UTF-8", json(b"\"canary \xff\"")),
        ("endlessly nested", json("[".repeat(900))),
        ("nested too deep", nested(MAX_DEPTH + 1)),
        ("no number", json("{\"canary\":NaN}")),
        ("half a number", json("[1e]")),
        (
            "a bomb that nobody asked for",
            answer(200, &[("content-encoding", "gzip")], b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03canary"),
        ),
    ];
    for (story, step) in stories {
        let result = fetch([step]).await;
        assert!(
            matches!(&result, Err(error @ FetchError::NotJson(_)) if !error.to_string().contains("canary")),
            "{story}: {result:?}"
        );
    }
    assert_eq!(
        fetch([answer(200, &[("content-type", "text/html")], "{]")]).await,
        Err(FetchError::NotJson("key must be a string at line 1 column 2 (text/html)".to_owned()))
    );
    // As deep as may be, and numbers that no number of ours can hold: as they were written.
    let deepest = fetch([nested(MAX_DEPTH)]).await.unwrap();
    assert_eq!(deepest.as_str(), "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH));
    let numbers = r#"{"a":12345678901234567890123,"b":[1e999,-0,1.50],"a":0.1000000000000000055}"#;
    assert_eq!(fetch([json(numbers)]).await.unwrap().as_str(), numbers);
    // Without harm: a byte order mark, a wrong content type, white space, a body that ends with the connection.
    assert_eq!(fetch([json("\u{FEFF}{}")]).await, Ok(json!({}).into()));
    assert_eq!(
        fetch([answer(200, &[("content-type", "text/plain")], " [1]\n")]).await,
        Ok(json!([1]).into())
    );
    let until_close = Step::Send(b"HTTP/1.1 200 OK\r\n\r\n[2]".to_vec());
    assert_eq!(fetch([until_close, Step::Close]).await, Ok(json!([2]).into()));
}

#[tokio::test]
async fn a_head_without_end_is_not_read_for_ever() {
    let server = Server::start().await;
    let line = format!("x-filler: {}\r\n", "x".repeat(1000));
    server.script([Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec()), Step::Endless(line.into_bytes())]);
    let result = sources().fetch(&call(server.url("/"))).await;
    assert!(matches!(result, Err(FetchError::Unreachable(_))), "{result:?}");
    server.abandoned().await;
}

#[tokio::test]
async fn an_abandoned_call_closes_its_connection() {
    let (server, sources) = (Server::start().await, sources());
    server.script([partial(100, "{"), Step::Hang]);
    let call = call(server.url("/"));
    let mut fetch = sources.fetch(&call);
    // Until the server has the request.
    while server.seen().is_empty() {
        tokio::select! {
            biased;
            result = &mut fetch => panic!("{result:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(fetch);
    server.abandoned().await;
}
