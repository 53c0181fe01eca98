//! The sandbox over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corpus;

use std::time::Duration;

use tokio::time::Instant;

use serde_json::{Value, json};

use super::*;

/// A sandbox and somebody to talk to it.
struct Harness {
    sandbox: Sandbox,
    client: reqwest::Client,
}

async fn start() -> Harness {
    // The client wants a TLS provider even where it only speaks plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = SandboxOptions { record_requests: true, ..SandboxOptions::default() };
    let sandbox = Sandbox::start(options).await.expect("a free loopback port");
    Harness { sandbox, client: reqwest::Client::new() }
}

impl Harness {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sandbox.base_url())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn chat(&self, body: &Value) -> reqwest::Response {
        let url = format!("{}/chat/completions", self.sandbox.openai_base_url());
        self.client.post(url).json(body).send().await.unwrap()
    }

    async fn stop(self) {
        self.sandbox.shutdown().await;
    }
}

fn question(data: &str) -> Value {
    json!({ "model": "sandbox-small", "messages": [
        { "role": "system", "content": "You are a support agent." },
        { "role": "user", "content": format!("<data source=\"order_history\">\n{data}\n</data>") },
        { "role": "user", "content": "What is the status of my recent order?" },
    ]})
}

#[tokio::test]
async fn a_customers_question_is_answered_from_what_the_sources_said() {
    let harness = start().await;
    let (_, profile) = harness.get("/customers/demo").await;
    assert_eq!(
        (&profile["name"], &profile["preferences"]["tone"]),
        (&json!("Dana Demo"), &json!("friendly"))
    );
    let (_, history) = harness.get("/customers/demo/orders").await;
    assert_eq!(harness.get("/orders/%23W10007").await.1, history["orders"][0]);
    assert_eq!(harness.get("/products/PROD-001").await.1["name"], "Aurora Wireless Headphones");

    let response = harness.chat(&question(&history.to_string())).await;
    assert_eq!(response.status(), 200);
    assert!(response.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
    assert!(response.headers().contains_key("openai-processing-ms"));
    let said: Value = response.json().await.unwrap();
    let text = said["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(text.contains("#W10007") && text.contains("shipped") && text.contains("Thursday"), "{text}");
    assert!(said["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(said["object"], "chat.completion");
    assert_eq!(said["choices"][0]["finish_reason"], "stop");
    let usage = &said["usage"];
    let tokens =
        ["prompt_tokens", "completion_tokens", "total_tokens"].map(|key| usage[key].as_u64().unwrap());
    assert_eq!(tokens[0] + tokens[1], tokens[2]);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);

    assert_eq!(
        harness.get("/_sandbox/counts").await.1,
        json!({ "model": 1, "customers": 1, "customer_orders": 1, "orders": 1, "products": 1 })
    );
    let (_, ledger) = harness.get("/_sandbox/ledger").await;
    assert_eq!(ledger["orders"][0]["path"], "/orders/%23W10007");
    assert_eq!(ledger["model"][0]["status"], 200);
    assert_eq!(ledger["model"][0]["prompt"][2]["content"], "What is the status of my recent order?");
    harness.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_said_in_json() {
    let harness = start().await;
    for path in ["/customers/nobody", "/customers/nobody/orders", "/orders/W1", "/products/x", "/elsewhere"] {
        let (status, body) = harness.get(path).await;
        assert_eq!((status, &body["error"]["code"]), (404, &json!("not_found")), "{path}");
    }
    let (status, body) = harness.get("/v1/elsewhere").await;
    assert_eq!((status, &body["error"]["type"]), (404, &json!("invalid_request_error")));
    assert_eq!(harness.get("/v1/chat/completions").await.0, 405);
    harness.stop().await;
}

#[tokio::test]
async fn the_models_door_refuses_like_the_real_one() {
    let harness = start().await;
    let response = harness.chat(&json!({ "model": "gpt-9", "messages": [] })).await;
    assert_eq!(response.status(), 404);
    let error = response.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &Value::Null));
    assert_eq!(error.as_object().unwrap().len(), 4, "all four keys are there");

    let huge = json!({ "model": "sandbox-small", "messages": "x".repeat(routes::MAX_REQUEST_BYTES) });
    assert_eq!(harness.chat(&huge).await.status(), 413);

    let mut short = question("[]");
    short["max_tokens"] = json!(3);
    let said: Value = harness.chat(&short).await.json().await.unwrap();
    assert_eq!(said["choices"][0]["finish_reason"], "length");
    assert_eq!(said["usage"]["completion_tokens"], 3);

    let (_, models) = harness.get("/v1/models").await;
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("sandbox-small")));
    assert_eq!(harness.get("/v1/models/sandbox-small").await.1["object"], "model");
    assert_eq!(harness.get("/v1/models/gpt-9").await.0, 404);
    harness.stop().await;
}

#[tokio::test]
async fn a_streamed_answer_is_the_same_answer_in_chunks() {
    let harness = start().await;
    let mut body = question("[]");
    let whole: Value = harness.chat(&body).await.json().await.unwrap();
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let response = harness.chat(&body).await;
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let text = response.text().await.unwrap();
    let mut frames: Vec<_> =
        text.split_terminator("\n\n").map(|f| f.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(frames.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    let [first, .., finish, usage] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert_eq!((&finish["choices"][0]["finish_reason"], &finish["usage"]), (&json!("stop"), &Value::Null));
    assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
    assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == first["id"]));
    let said: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, whole["choices"][0]["message"]["content"].as_str().unwrap());
    assert!(chunks.len() > 5, "several content deltas");

    body["stream_options"] = Value::Null;
    let text = harness.chat(&body).await.text().await.unwrap();
    assert!(!text.contains("\"usage\""), "usage only when asked for");
    harness.stop().await;
}

#[tokio::test]
async fn faults_are_switched_while_it_runs() {
    let harness = start().await;
    let faults = harness.url("/_sandbox/faults");
    let set = |fault: Value| harness.client.post(&faults).json(&fault).send();
    let fault =
        json!({ "target": "model", "status": 429, "headers": { "retry-after": "9" }, "remaining": 1 });
    assert_eq!(set(fault).await.unwrap().status(), 200);
    assert_eq!(
        set(json!({ "target": "orders", "status": 503, "body": "<html>" })).await.unwrap().status(),
        200
    );
    let typo = set(json!({ "target": "orders", "delay": 3 })).await.unwrap();
    assert_eq!(typo.status(), 400);
    assert!(typo.text().await.unwrap().contains("unknown field"));

    let limited = harness.chat(&question("[]")).await;
    assert_eq!((limited.status().as_u16(), &limited.headers()["retry-after"]), (429, &"9".parse().unwrap()));
    assert_eq!(limited.json::<Value>().await.unwrap()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(harness.chat(&question("[]")).await.status(), 200, "only one request was to fail");

    let event = "data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    let stream =
        Fault::status(FaultTarget::Model, 200).header("content-type", "text/event-stream").body(event);
    harness.sandbox.set_fault(stream.times(1)).unwrap();
    let failing = harness.chat(&question("[]")).await;
    assert_eq!(failing.headers()["content-type"], "text/event-stream");
    assert_eq!(failing.text().await.unwrap(), event, "an error after a good status");

    for path in ["/orders/W10007", "/customers/demo/orders"] {
        let down = harness.client.get(harness.url(path)).send().await.unwrap();
        assert_eq!((down.status().as_u16(), down.text().await.unwrap().as_str()), (503, "<html>"));
    }
    assert_eq!(harness.get("/customers/demo").await.0, 200, "other sources stay up");
    harness.client.delete(&faults).send().await.unwrap();
    assert_eq!(harness.get("/orders/W10007").await.0, 200);
    assert_eq!(
        harness.sandbox.ledger().orders.iter().map(|e| e.status).collect::<Vec<_>>(),
        [Some(503), Some(200)]
    );
    harness.stop().await;
}

#[tokio::test]
async fn a_cut_answer_breaks_off_after_its_first_half() {
    let harness = start().await;
    harness.sandbox.set_fault(Fault::cut(FaultTarget::Products).times(1)).unwrap();
    let url = harness.url("/products/PROD-001");
    let mut response = harness.client.get(&url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.unwrap().is_some_and(|half| half.starts_with(b"{")));
    assert!(response.chunk().await.is_err(), "a cut body must not look complete");
    assert!(harness.client.get(&url).send().await.unwrap().json::<Value>().await.is_ok());
    harness.stop().await;
}

#[tokio::test]
async fn stopping_ends_delays_and_frees_the_port() {
    let harness = start().await;
    harness.sandbox.set_fault(Fault::delay(FaultTarget::Model, Duration::from_mins(5))).unwrap();
    let url = harness.url("/v1/chat/completions");
    let call = tokio::spawn(harness.client.post(url).json(&question("[]")).send());
    while harness.sandbox.counts().model == 0 {
        tokio::task::yield_now().await;
    }
    let addr = harness.sandbox.addr();
    let began = Instant::now();
    harness.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2), "stopping waited for a delay");
    assert_eq!(call.await.unwrap().unwrap().status(), 503);
    tokio::net::TcpListener::bind(addr).await.expect("the port is free again");
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let harness = start().await;
    let again =
        Sandbox::start(SandboxOptions { listen: harness.sandbox.addr(), ..SandboxOptions::default() }).await;
    let error = again.expect_err("the address is taken");
    assert!(error.to_string().contains(&harness.sandbox.addr().to_string()), "{error}");
    harness.stop().await;
}
