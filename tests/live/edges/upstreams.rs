//! A data source and a model whose answers are as large and as deep as they are asked to be.

use axum::{Router, body::Bytes, extract::Path, http::header::CONTENT_TYPE, routing::any};
use serde_json::{Value, json};

/// `max_bytes` of the source.
pub(super) const MAX_SOURCE: usize = 20_000;
/// `generation.max_response_bytes`. An answer of this size does not fit into a small event.
pub(super) const MAX_MODEL: usize = 150_000;

/// Text whose JSON string, without its quotes, has exactly so many bytes, and which no reader takes for blank.
pub(super) fn escaped_to(unit: char, bytes: usize) -> String {
    let one = Value::from(unit.to_string()).to_string().len() - 2;
    let units = (bytes - 1) / one;
    let mut text: String = std::iter::repeat_n(unit, units).collect();
    text.extend(std::iter::repeat_n('x', bytes - units * one));
    text
}

/// The text of a model's answer whose whole body has so many bytes.
pub(super) fn answer(unit: char, bytes: usize) -> String {
    escaped_to(unit, bytes - completion("").len())
}

fn completion(text: &str) -> String {
    json!({
        "id": "1", "object": "chat.completion", "model": "edge",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
    .to_string()
}

/// `size-<code point>-<bytes>` or `deep-<levels>` or `digits-<count>`.
fn document(wanted: &str) -> String {
    let parts: Vec<_> = wanted.split('-').collect();
    let number = |at: usize| parts[at].parse::<usize>().expect("a number");
    match parts[0] {
        "size" => {
            let unit = char::from_u32(u32::try_from(number(1)).unwrap()).expect("a character");
            Value::from(escaped_to(unit, number(2) - 2)).to_string()
        }
        "deep" => format!("{}7{}", "[".repeat(number(1)), "]".repeat(number(1))),
        "digits" => format!("{{\"n\":{}}}", "7".repeat(number(1))),
        other => panic!("{other}"),
    }
}

/// What the last message asks for: `answer <code point> <bytes>`, else one word.
fn reply(request: &[u8]) -> String {
    let request: Value = serde_json::from_slice(request).expect("a request in JSON");
    let said =
        request["messages"].as_array().and_then(|all| all.last()).expect("a message")["content"].to_string();
    let wanted = said.split_once("answer ").map(|(_, rest)| {
        let mut numbers =
            rest.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<usize>().expect("a number"));
        let unit = char::from_u32(u32::try_from(numbers.next().unwrap()).unwrap()).expect("a character");
        answer(unit, numbers.next().unwrap())
    });
    completion(wanted.as_deref().unwrap_or("Done."))
}

pub(super) struct Upstreams {
    pub(super) base: String,
}

impl Upstreams {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let json = || [(CONTENT_TYPE, "application/json")];
        let router = Router::new()
            .route(
                "/source/{wanted}",
                any(move |Path(wanted): Path<String>| async move { (json(), document(&wanted)) }),
            )
            .route("/v1/chat/completions", any(move |body: Bytes| async move { (json(), reply(&body)) }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base }
    }
}
