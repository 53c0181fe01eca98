//! The OpenAI-compatible client: the contract, and exactly what goes over the wire.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use throughline::llm::{
    CallLimits, Credential, KeySource, ModelProviders, ProviderKind, ProviderSettings, ProviderSpec,
};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{ModelError, ModelFailure, Models, NoSink};
use throughline_actors::ports::{Classify, Fault};

use super::clock;
use super::server::{Server, Step, answer, json};

pub(super) const KEY: &str = "sk-canary-0123456789";

/// Short enough for tests, long enough for a busy machine where the answer is there.
pub(super) fn limits() -> CallLimits {
    CallLimits {
        connect: Duration::from_secs(10),
        first_token: Duration::from_secs(10),
        read: Duration::from_secs(10),
        total: Duration::from_secs(30),
        max_response_bytes: 100_000,
    }
}

pub(super) fn models_at(base_url: &str, limits: CallLimits) -> ModelProviders {
    let spec = ProviderSpec {
        name: "provider".to_owned(),
        kind: ProviderKind::OpenAi,
        base_url: base_url.to_owned(),
        keys: vec![KeySource::Fixed(Credential::new(KEY))],
        options: HashMap::new(),
        limits,
        settings: ProviderSettings::default(),
    };
    ModelProviders::new(vec![spec], &clock()).unwrap()
}

/// What the adapter makes of one scripted exchange.
pub(super) async fn failure_of(steps: impl Into<Vec<Step>>) -> ModelFailure {
    let server = Server::start().await;
    server.script(steps);
    models_at(&server.url("/v1"), limits()).generate(&request("provider"), &NoSink).await.unwrap_err()
}

pub(super) fn completion(text: &str, finish_reason: &str, usage: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null, "finish_reason": finish_reason}], "usage": usage})
}

#[tokio::test]
async fn an_answer_keeps_what_the_provider_said() {
    let server = Server::start().await;
    let sent = completion("Hi", "stop", &json!({"prompt_tokens": 3, "completion_tokens": 1}));
    server.script([answer(200, &[("x-request-id", "req_1")], sent.to_string())]);
    let models = models_at(&server.url("/v1"), limits());
    let answer = models.generate(&request("provider"), &NoSink).await.unwrap();
    assert_eq!((answer.model.as_str(), &answer.raw), ("model-2026", &sent));
    assert_eq!((answer.facts.http_status, answer.facts.request_id.as_deref()), (Some(200), Some("req_1")));
    // Where it does not name the model, the answer has the name that was asked for.
    server.script([json(r#"{"choices":[{"message":{"content":"Hi"}}]}"#)]);
    assert_eq!(models.generate(&request("provider"), &NoSink).await.unwrap().model, "model");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_wait_is_found_wherever_the_provider_puts_it() {
    let google = r#"[{"error":{"code":429,"details":[{"retryDelay":"47s"}]}}]"#;
    let openai = r#"{"error":{"message":"Rate limit reached for m. Please try again in 6.2s.","code":"rate_limit_exceeded"}}"#;
    let cases = [
        (answer(429, &[("retry-after-ms", "1500"), ("retry-after", "9")], "{}"), 1_500),
        (answer(429, &[("retry-after", "0.5")], openai), 500),
        (answer(503, &[("retry-after", "Sun, 06 Nov 1994 08:51:37 GMT")], ""), 120_000),
        (answer(429, &[], google), 47_000),
        (answer(429, &[("retry-after", "soon")], openai), 6_200),
    ];
    for (step, ms) in cases {
        let failure = failure_of([step]).await;
        let wait = Some(Duration::from_millis(ms));
        assert_eq!(failure.fault(), Fault::Transient { wait_at_least: wait }, "{failure:?}");
    }
}

#[tokio::test]
async fn the_provider_may_overrule_its_status() {
    let overruled = |status, word| failure_of([answer(status, &[("x-should-retry", word)], "{}")]);
    let transient = Fault::Transient { wait_at_least: None };
    assert_eq!(overruled(429, "false").await.fault(), Fault::Permanent);
    assert_eq!(overruled(500, "false").await.fault(), Fault::Permanent);
    assert_eq!(overruled(500, "true").await.fault(), transient);
    assert_eq!(overruled(500, "perhaps").await.fault(), transient);
    assert_eq!(overruled(400, "true").await.fault(), transient);
    assert_eq!(overruled(400, "false").await.fault(), Fault::Permanent);
    // Not what it said in so many words.
    assert_eq!(overruled(401, "true").await.fault(), Fault::Permanent);
}

#[tokio::test]
async fn a_redirect_leads_nowhere_with_the_key() {
    let (server, canary) = (Server::start().await, Server::start().await);
    server.script([answer(307, &[("location", &canary.url("/"))], "")]);
    let models = models_at(&server.url("/v1"), limits());
    let failure = models.generate(&request("provider"), &NoSink).await.unwrap_err();
    assert!(matches!(&failure.error, ModelError::BadRequest(words) if words.contains("307")), "{failure:?}");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_key_that_the_provider_echoes_is_in_nothing_that_leaves() {
    let escaped = KEY.replace('c', "\\u0063");
    let headers = [("content-type", "text/html"), ("x-request-id", KEY)];
    for status in [200, 302, 400, 401, 404, 429, 500] {
        for body in [
            format!("<html>Authorization: Bearer {KEY}</html>"),
            json!({"error": {"message": format!("bad key {KEY}"), "type": KEY, "code": KEY}}).to_string(),
            format!("{{\"error\":\"{escaped}\"}}"),
            format!("{{\"{escaped}\":1}}"),
        ] {
            let failure = failure_of([answer(status, &headers, &body)]).await;
            let shown = format!("{failure} {failure:?}");
            assert!(!shown.contains("canary"), "{status} {body}: {shown}");
        }
    }
    let server = Server::start().await;
    server.script([json(completion(&format!("Your key is {KEY}."), "stop", &json!({KEY: KEY})).to_string())]);
    let answer =
        models_at(&server.url("/v1"), limits()).generate(&request("provider"), &NoSink).await.unwrap();
    assert_eq!(answer.text, "Your key is ***.");
    assert!(!format!("{answer:?}").contains("canary"));
}

#[test]
fn settings_that_cannot_work_are_refused_and_secrets_not_repeated() {
    let refused = |base_url: &str, key: &str| {
        let spec = ProviderSpec {
            name: "mine".to_owned(),
            kind: ProviderKind::OpenAi,
            base_url: base_url.to_owned(),
            keys: vec![KeySource::Fixed(Credential::new(key))],
            options: HashMap::new(),
            limits: limits(),
            settings: ProviderSettings::default(),
        };
        assert!(!format!("{spec:?}").contains(key));
        ModelProviders::new(vec![spec.clone(), spec], &clock())
            .err()
            .map(|error| format!("{error} {error:?}"))
    };
    let message = refused("http://h/v1", "canary\nkey").unwrap();
    assert!(message.contains("mine") && !message.contains("canary"), "{message}");
    for base_url in ["", "h/v1", "ftp://h/v1", "http://"] {
        let message = refused(base_url, "canary-key").unwrap();
        assert!(message.contains("base_url") && message.contains("mine"), "{message}");
    }
    assert!(refused("http://h/v1", "canary-key").unwrap().contains("two providers"));
}
