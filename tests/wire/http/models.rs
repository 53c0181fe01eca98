//! The OpenAI-compatible client: the contract, and exactly what goes over the wire.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use throughline::llm::{CallLimits, Credential, KeySource, ModelProviders, ProviderKind, ProviderSpec};
use throughline_actors::ports::contract::model::{ModelRig, Scene, models_keep_their_contract, request};
use throughline_actors::ports::model::{ModelError, ModelFailure, ModelRequest, Models, Unheard};
use throughline_actors::ports::{Classify, Fault};
use throughline_schemas::{FinishReason, TraceParent};
use tokio::net::TcpSocket;

use super::clock;
use super::server::{Server, Step, answer, json, partial, refusing};

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
    };
    ModelProviders::new(vec![spec], &clock()).unwrap()
}

/// What the adapter makes of one scripted exchange.
pub(super) async fn failure_of(steps: impl Into<Vec<Step>>) -> ModelFailure {
    let server = Server::start().await;
    server.script(steps);
    models_at(&server.url("/v1"), limits()).generate(&request("provider"), &Unheard).await.unwrap_err()
}

pub(super) fn completion(text: &str, finish_reason: &str, usage: &Value) -> Value {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model-2026",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": null, "finish_reason": finish_reason}], "usage": usage})
}

struct Rig {
    server: Server,
    models: Arc<ModelProviders>,
}

fn error(status: u16, code: &Value, kind: &str) -> Step {
    let body = json!({"error": {"message": "words", "type": kind, "param": null, "code": code}});
    answer(status, &[("content-type", "application/json")], body.to_string())
}

#[async_trait]
impl ModelRig for Rig {
    fn models(&self) -> Arc<dyn Models> {
        Arc::clone(&self.models) as _
    }

    async fn stage(&self, scene: Scene) -> ModelRequest {
        let null = Value::Null;
        let steps = match scene {
            Scene::Answer { text, finish_reason, usage } => {
                let finish_reason = match finish_reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                    FinishReason::ToolCalls => "tool_calls",
                    FinishReason::ContentFilter => "content_filter",
                    FinishReason::Other => "eos",
                };
                let usage = usage.map_or(Value::Null, |usage| {
                    json!({"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens,
                        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
                        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens}})
                });
                vec![json(completion(text, finish_reason, &usage).to_string())]
            }
            Scene::RateLimited { retry_after } => {
                let wait = retry_after.as_secs().to_string();
                vec![answer(429, &[("retry-after", &wait)], "{}")]
            }
            Scene::Overloaded => vec![error(503, &null, "server_error")],
            Scene::BadKey => vec![error(401, &json!("invalid_api_key"), "invalid_request_error")],
            Scene::QuotaUsedUp => vec![error(429, &json!("insufficient_quota"), "insufficient_quota")],
            Scene::UnknownModel => vec![error(404, &json!("model_not_found"), "invalid_request_error")],
            Scene::TooLong => vec![error(400, &json!("context_length_exceeded"), "invalid_request_error")],
            Scene::BadRequest => vec![error(400, &null, "invalid_request_error")],
            Scene::Empty => vec![json(completion("", "stop", &null).to_string())],
            Scene::NotJson => vec![answer(200, &[("content-type", "text/html")], "<html></html>")],
            Scene::Huge => vec![json(" ".repeat(200_000))],
            Scene::CutShort => vec![partial(100, "{"), Step::Close],
            Scene::Silent => vec![Step::Hang],
            Scene::Stalls => vec![partial(100, "{"), Step::Hang],
            Scene::Unreachable => return request("unreachable"),
        };
        self.server.script(steps);
        request("provider")
    }

    fn seen(&self) -> Vec<TraceParent> {
        let traceparent = |seen: super::server::Seen| seen.header("traceparent").unwrap().parse().unwrap();
        self.server.seen().into_iter().map(traceparent).collect()
    }
}

#[tokio::test]
async fn the_adapter_keeps_the_contract() {
    let server = Server::start().await;
    let (_socket, refusing): (TcpSocket, _) = refusing();
    let limits =
        CallLimits { first_token: Duration::from_millis(500), read: Duration::from_millis(500), ..limits() };
    let spec = |name: &str, base_url: String| ProviderSpec {
        name: name.to_owned(),
        kind: ProviderKind::OpenAi,
        base_url,
        keys: Vec::new(),
        options: HashMap::new(),
        limits,
    };
    let specs =
        vec![spec("provider", server.url("/v1")), spec("unreachable", format!("http://{refusing}/v1"))];
    let models = Arc::new(ModelProviders::new(specs, &clock()).unwrap());
    models_keep_their_contract(&Rig { server, models }).await;
}

#[tokio::test]
async fn a_request_is_exactly_what_the_protocol_wants() {
    let server = Server::start().await;
    server.script([json(completion("Hi", "stop", &Value::Null).to_string())]);
    models_at(&server.url("/v1/"), limits()).generate(&request("provider"), &Unheard).await.unwrap();
    let seen = server.seen();
    let body = r#"{"max_tokens":100,"messages":[{"content":"Where is my order?","role":"user"}],"model":"model","stream":false,"temperature":0.7}"#;
    assert_eq!(String::from_utf8_lossy(&seen[0].body), body);
    let mut lines: Vec<&str> = seen[0].head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/chat/completions HTTP/1.1");
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "accept: application/json",
            &format!("authorization: Bearer {KEY}"),
            &format!("content-length: {}", body.len()),
            "content-type: application/json",
            &format!("host: {}", server.addr),
            "traceparent: 00-00000000000000000000000000000007-0000000000000009-01",
            concat!("user-agent: throughline/", env!("CARGO_PKG_VERSION")),
        ]
    );
}

#[tokio::test]
async fn an_answer_keeps_what_the_provider_said() {
    let server = Server::start().await;
    let sent = completion("Hi", "stop", &json!({"prompt_tokens": 3, "completion_tokens": 1}));
    server.script([answer(200, &[("x-request-id", "req_1")], sent.to_string())]);
    let models = models_at(&server.url("/v1"), limits());
    let answer = models.generate(&request("provider"), &Unheard).await.unwrap();
    assert_eq!((answer.model.as_str(), &answer.raw), ("model-2026", &sent));
    assert_eq!((answer.facts.http_status, answer.facts.request_id.as_deref()), (Some(200), Some("req_1")));
    // Where it does not name the model, the answer has the name that was asked for.
    server.script([json(r#"{"choices":[{"message":{"content":"Hi"}}]}"#)]);
    assert_eq!(models.generate(&request("provider"), &Unheard).await.unwrap().model, "model");
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
    let failure = models.generate(&request("provider"), &Unheard).await.unwrap_err();
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
        models_at(&server.url("/v1"), limits()).generate(&request("provider"), &Unheard).await.unwrap();
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
