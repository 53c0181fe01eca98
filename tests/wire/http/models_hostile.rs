//! Providers that are slow, broken or hostile.

use std::time::Duration;

use tokio::time::Instant;

use serde_json::Value;
use throughline::llm::CallLimits;
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{ModelError, ModelFailure, Models, NoSink, Phase};

use super::models::{completion, failure_of, limits, models_at};
use super::server::{Server, Step, answer, chunked, json, partial};

const SHORT: Duration = Duration::from_millis(150);

/// What the adapter makes of one scripted exchange under these limits, and how long that took.
async fn timed(limits: CallLimits, steps: Vec<Step>) -> (ModelFailure, Duration) {
    let server = Server::start().await;
    server.script(steps);
    let models = models_at(&server.url("/v1"), limits);
    let start = Instant::now();
    let failure = models.generate(&request("provider"), &NoSink).await.unwrap_err();
    (failure, start.elapsed())
}

#[tokio::test]
async fn every_limit_fires_and_says_which_it_was() {
    let drip = Step::Drip(vec![b' '; 1000], Duration::from_millis(20));
    let begun = Step::Send(b"HTTP/1.1 200 OK\r\ncontent-".to_vec());
    let cases = [
        (CallLimits { first_token: SHORT, ..limits() }, vec![Step::Hang], Phase::FirstToken),
        (CallLimits { first_token: SHORT, ..limits() }, vec![begun, Step::Hang], Phase::FirstToken),
        // Headers alone are no beginning: a whole answer has as long to think as a stream.
        (
            CallLimits { first_token: SHORT, ..limits() },
            vec![partial(100, ""), Step::Hang],
            Phase::FirstToken,
        ),
        (CallLimits { read: SHORT, ..limits() }, vec![partial(100, "{"), Step::Hang], Phase::Read),
        (CallLimits { total: SHORT, ..limits() }, vec![Step::Hang], Phase::Total),
        (CallLimits { total: SHORT, ..limits() }, vec![partial(100, "{"), Step::Hang], Phase::Total),
        // Every piece comes in time, the answer does not.
        (CallLimits { total: SHORT, ..limits() }, vec![partial(1000, ""), drip], Phase::Total),
    ];
    for (limits, steps, phase) in cases {
        let (failure, took) = timed(limits, steps.clone()).await;
        assert_eq!(failure.error, ModelError::TimedOut(phase), "{steps:?}");
        assert!(took >= SHORT, "{steps:?}");
    }
}

/// On Linux, a listener whose queue is full leaves further connections without an answer.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_is_never_made_is_told_from_an_answer_that_never_comes() {
    use tokio::net::{TcpSocket, TcpStream};

    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(SHORT, TcpStream::connect(addr)).await {
        queue.push(stream);
    }
    let base_url = format!("http://{addr}/v1");
    for limits in [
        CallLimits { connect: SHORT, ..limits() },
        // Even if another limit is the shorter one: nothing was sent.
        CallLimits { first_token: SHORT, ..limits() },
        CallLimits { total: SHORT, ..limits() },
    ] {
        let failure = models_at(&base_url, limits).generate(&request("provider"), &NoSink).await.unwrap_err();
        assert_eq!(failure.error, ModelError::TimedOut(Phase::Connect));
    }
}

#[tokio::test]
async fn no_more_is_read_than_allowed() {
    for length in [100_001, 1 << 30, 1 << 62] {
        let failure = failure_of([partial(length, ""), Step::Hang]).await;
        assert_eq!(failure.error, ModelError::TooLarge(100_000), "{length}");
        assert_eq!(failure.facts.http_status, Some(200));
    }
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    let failure = failure_of([chunked(), Step::Endless(chunk.into_bytes())]).await;
    assert_eq!(failure.error, ModelError::TooLarge(100_000));
}

#[tokio::test]
async fn an_answer_in_pieces_is_put_together() {
    let server = Server::start().await;
    let whole = completion(&"ä".repeat(5000), "stop", &Value::Null).to_string();
    let mut steps = vec![chunked()];
    for piece in whole.as_bytes().chunks(777) {
        let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        steps.push(Step::Send(chunk));
    }
    steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
    server.script(steps);
    let answer =
        models_at(&server.url("/v1"), limits()).generate(&request("provider"), &NoSink).await.unwrap();
    assert_eq!(answer.text, "ä".repeat(5000));
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_may_have_cost_money() {
    let whole = completion("Hi", "stop", &Value::Null).to_string();
    let stories: [Vec<Step>; 7] = [
        vec![Step::Close],
        vec![Step::Reset],
        vec![Step::Send(b"HTTP/1.1 200 OK\r\n".to_vec()), Step::Close],
        // Complete JSON, but not all that was promised.
        vec![partial(10_000, &whole), Step::Close],
        vec![partial(10_000, &whole), Step::Reset],
        vec![chunked(), Step::Send(format!("{:x}\r\n{whole}\r\n", whole.len()).into_bytes()), Step::Close],
        vec![Step::Send(b"220 smtp ready\r\n\r\n".to_vec()), Step::Hang],
    ];
    for steps in stories {
        let failure = failure_of(steps.clone()).await;
        assert!(matches!(failure.error, ModelError::CutShort(_)), "{steps:?}: {failure:?}");
    }
}

#[tokio::test]
async fn garbage_with_a_success_status_is_no_answer() {
    let gzip = [("content-encoding", "gzip")];
    let stories: [(&str, Step); 5] = [
        ("no content", answer(204, &[], "")),
        ("an empty body", json("")),
        ("a page", answer(200, &[("content-type", "text/html")], "<html></html>")),
        ("cut short", json("{\"choices\":[{\"message\":{\"content\":\"H")),
        ("packed and cut", answer(200, &gzip, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")),
    ];
    for (story, step) in stories {
        let failure = failure_of([step]).await;
        assert!(matches!(failure.error, ModelError::BadResponse(_)), "{story}: {failure:?}");
    }
    let error = json("{\"error\":{\"message\":\"Overloaded\",\"type\":\"overloaded_error\"}}");
    let failure = failure_of([error]).await;
    assert!(matches!(failure.error, ModelError::Server(_)), "{failure:?}");
}

#[tokio::test]
async fn a_status_counts_even_if_its_body_never_ends() {
    let head = |status: u16| {
        let head =
            format!("HTTP/1.1 {status} X\r\nretry-after: 7\r\ncontent-length: 1000\r\n\r\n{{\"error\"");
        Step::Send(head.into_bytes())
    };
    let short = CallLimits { read: SHORT, ..limits() };
    for end in [Step::Hang, Step::Close, Step::Reset] {
        let (failure, _) = timed(short, vec![head(429), end]).await;
        assert!(matches!(failure.error, ModelError::RateLimited(_)), "{failure:?}");
        assert_eq!(failure.facts.retry_after, Some(Duration::from_secs(7)));
    }
    let huge = b"HTTP/1.1 503 X\r\ncontent-length: 9999999999\r\n\r\n".to_vec();
    let (failure, _) = timed(short, vec![Step::Send(huge), Step::Hang]).await;
    assert!(matches!(failure.error, ModelError::Server(_)), "{failure:?}");
}

#[tokio::test]
async fn an_abandoned_call_closes_its_connection() {
    let server = Server::start().await;
    server.script([Step::Hang]);
    let models = models_at(&server.url("/v1"), limits());
    let request = request("provider");
    let mut generate = models.generate(&request, &NoSink);
    while server.seen().is_empty() {
        tokio::select! {
            biased;
            result = &mut generate => panic!("{result:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(generate);
    server.abandoned().await;
}
