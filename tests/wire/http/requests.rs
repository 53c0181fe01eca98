//! Exactly what goes over the wire, in all three protocols.

use std::collections::HashMap;

use serde_json::{Value, json};
use throughline::llm::{
    Credential, KeySource, MaxTokensField, ModelOptions, ModelProviders, ProviderKind, ProviderSettings,
    ProviderSpec,
};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{AnswerFormat, ModelError, ModelRequest, Models, NoSink};
use throughline_schemas::event::generation::{Message, Role};

use super::clock;
use super::dialects::{Answer, KINDS, base_path, events, send_stream, send_whole};
use super::models::{KEY, limits};
use super::server::{Seen, Server};

fn conversation() -> ModelRequest {
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    ModelRequest {
        model: "some/model".to_owned(),
        messages: vec![
            message(Role::System, "Be brief."),
            message(Role::User, "{\"orders\":[]}"),
            message(Role::User, "\"Hi\"\n\u{1F600}"),
            message(Role::Assistant, "Hello."),
            message(Role::User, "Where is it?"),
        ]
        .into(),
        max_tokens: 1000,
        temperature_milli: Some(1_250),
        top_p_milli: Some(900),
        stop: vec!["END".to_owned()],
        ..request("provider")
    }
}

/// What the provider sees of a request, and what comes of its answer.
async fn sent(
    kind: ProviderKind,
    request: &ModelRequest,
    answer: &str,
) -> (Seen, Result<String, ModelError>) {
    let server = Server::start().await;
    let options = HashMap::from([(
        "strict".to_owned(),
        ModelOptions { max_tokens_field: MaxTokensField::MaxCompletionTokens, send_temperature: false },
    )]);
    let spec = ProviderSpec {
        name: "provider".to_owned(),
        kind,
        base_url: server.url(base_path(kind)),
        keys: vec![KeySource::Fixed(Credential::new(KEY))],
        options,
        limits: limits(),
        settings: ProviderSettings::default(),
    };
    let answer = Answer::text(answer);
    if request.stream {
        server.script(send_stream(&events(kind, &answer)));
    } else {
        server.script([send_whole(kind, &answer)]);
    }
    let models = ModelProviders::new(vec![spec], &clock()).unwrap();
    let result = models.generate(request, &NoSink).await;
    let result = result.map(|answer| answer.text).map_err(|failure| failure.error);
    (server.seen().remove(0), result)
}

async fn body(kind: ProviderKind, request: &ModelRequest) -> Value {
    let (seen, result) = sent(kind, request, "{}").await;
    result.unwrap();
    serde_json::from_slice(&seen.body).unwrap()
}

/// The request line and all headers but those that differ from run to run, in order.
fn head(seen: &Seen) -> Vec<&str> {
    let mut lines: Vec<&str> = seen.head.trim_end().lines().collect();
    lines.retain(|line| !line.starts_with("host:") && !line.starts_with("content-length:"));
    lines[1..].sort_unstable();
    lines
}

#[tokio::test]
async fn the_head_is_what_each_provider_wants() {
    let key = |name: &str| format!("{name}: {KEY}");
    let agent = concat!("user-agent: throughline/", env!("CARGO_PKG_VERSION"));
    let trace = "traceparent: 00-00000000000000000000000000000007-0000000000000009-01";
    let (json, accept) = ("content-type: application/json", "accept: application/json");
    let model = conversation();
    let (seen, _) = sent(ProviderKind::OpenAi, &model, "x").await;
    let bearer = format!("authorization: Bearer {KEY}");
    let coding = "accept-encoding: identity, gzip;q=0.5, deflate;q=0.5, br;q=0.5";
    assert_eq!(
        head(&seen),
        ["POST /v1/chat/completions HTTP/1.1", coding, accept, &bearer, json, trace, agent]
    );
    let (seen, _) = sent(ProviderKind::Anthropic, &model, "x").await;
    let (key_header, version) = (key("x-api-key"), "anthropic-version: 2023-06-01");
    assert_eq!(
        head(&seen),
        ["POST /v1/messages HTTP/1.1", coding, accept, version, json, trace, agent, &key_header]
    );
    let (seen, _) = sent(ProviderKind::Gemini, &model, "x").await;
    let path = "POST /v1beta/models/some%2Fmodel:generateContent HTTP/1.1";
    assert_eq!(head(&seen), [path, coding, accept, json, trace, agent, &key("x-goog-api-key")]);

    let stream = ModelRequest { stream: true, ..conversation() };
    for (kind, path) in KINDS.into_iter().zip([
        "POST /v1/chat/completions HTTP/1.1",
        "POST /v1/messages HTTP/1.1",
        "POST /v1beta/models/some%2Fmodel:streamGenerateContent?alt=sse HTTP/1.1",
    ]) {
        let (seen, _) = sent(kind, &stream, "x").await;
        assert_eq!((head(&seen)[0], seen.header("accept")), (path, Some("text/event-stream")));
    }
}

#[tokio::test]
async fn a_conversation_is_said_in_each_protocol() {
    let request = conversation();
    assert_eq!(
        body(ProviderKind::OpenAi, &request).await,
        json!({"model": "some/model", "stream": false, "max_tokens": 1000, "temperature": 1.25, "top_p": 0.9,
            "stop": ["END"], "messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": "{\"orders\":[]}\n\n\"Hi\"\n\u{1F600}"},
            {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Where is it?"}]})
    );
    // Its scale of temperatures ends at 1, and turns alternate.
    assert_eq!(
        body(ProviderKind::Anthropic, &request).await,
        json!({"model": "some/model", "stream": false, "max_tokens": 1000, "temperature": 1.0, "top_p": 0.9,
            "stop_sequences": ["END"], "system": "Be brief.", "messages": [
            {"role": "user", "content": [{"type": "text", "text": "{\"orders\":[]}"},
                {"type": "text", "text": "\"Hi\"\n\u{1F600}"}]},
            {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Where is it?"}]})
    );
    assert_eq!(
        body(ProviderKind::Gemini, &request).await,
        json!({"systemInstruction": {"parts": [{"text": "Be brief."}]}, "generationConfig": {
            "maxOutputTokens": 1000, "temperature": 1.25, "topP": 0.9, "stopSequences": ["END"]}, "contents": [
            {"role": "user", "parts": [{"text": "{\"orders\":[]}"}, {"text": "\"Hi\"\n\u{1F600}"}]},
            {"role": "model", "parts": [{"text": "Hello."}]},
            {"role": "user", "parts": [{"text": "Where is it?"}]}]})
    );
}

#[tokio::test]
async fn a_stream_is_asked_for_with_its_usage() {
    let request = ModelRequest { stream: true, ..request("provider") };
    let openai = body(ProviderKind::OpenAi, &request).await;
    assert_eq!(
        (&openai["stream"], &openai["stream_options"]),
        (&json!(true), &json!({"include_usage": true}))
    );
    assert_eq!(body(ProviderKind::Anthropic, &request).await["stream"], true);
    assert_eq!(body(ProviderKind::Gemini, &request).await.get("stream"), None);
}

#[tokio::test]
async fn what_a_model_refuses_is_not_sent() {
    let request = |model: &str| ModelRequest { model: model.to_owned(), ..conversation() };
    for model in ["strict", "o3-mini", "gpt-5"] {
        let openai = body(ProviderKind::OpenAi, &request(model)).await;
        assert_eq!(openai["max_completion_tokens"], 1000, "{model}");
        for field in ["max_tokens", "temperature", "top_p"] {
            assert_eq!(openai.get(field), None, "{model}");
        }
    }
    let anthropic = body(ProviderKind::Anthropic, &request("strict")).await;
    assert_eq!((&anthropic["max_tokens"], anthropic.get("temperature")), (&json!(1000), None));
    let gemini = body(ProviderKind::Gemini, &request("strict")).await;
    assert_eq!(gemini["generationConfig"], json!({"maxOutputTokens": 1000, "stopSequences": ["END"]}));
}

#[tokio::test]
async fn json_is_asked_for_and_checked() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "number"}}});
    let any = ModelRequest { format: AnswerFormat::Json(None), ..request("provider") };
    let one = ModelRequest { format: AnswerFormat::Json(Some(schema.clone())), ..request("provider") };

    let openai = body(ProviderKind::OpenAi, &any).await;
    assert_eq!(openai["response_format"], json!({"type": "json_object"}));
    // The mode wants to hear the word.
    assert!(openai["messages"][0]["content"].as_str().unwrap().contains("JSON"), "{openai}");
    assert_eq!(
        body(ProviderKind::OpenAi, &one).await["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}})
    );
    assert!(body(ProviderKind::Anthropic, &any).await["system"].as_str().unwrap().contains("JSON"));
    let anthropic = body(ProviderKind::Anthropic, &one).await;
    assert_eq!(anthropic["output_config"], json!({"format": {"type": "json_schema", "schema": schema}}));
    let gemini = &body(ProviderKind::Gemini, &one).await["generationConfig"];
    assert_eq!(
        (&gemini["responseMimeType"], &gemini["responseJsonSchema"]),
        (&json!("application/json"), &schema)
    );

    for kind in KINDS {
        for stream in [false, true] {
            let request = ModelRequest { stream, ..any.clone() };
            let (_, result) = sent(kind, &request, "{\"a\": 1}").await;
            assert_eq!(result, Ok("{\"a\": 1}".to_owned()));
            for wrapped in ["```json\n{\"a\": 1}\n```", "<think>so</think>\n```\n{\"a\": 1}```"] {
                let (_, result) = sent(kind, &request, wrapped).await;
                assert_eq!(result, Ok("{\"a\": 1}".to_owned()), "{kind:?} {wrapped}");
            }
            for text in ["```json\nno\n```", "Sure: {}", "{\"a\": "] {
                let (_, result) = sent(kind, &request, text).await;
                assert!(
                    matches!(&result, Err(ModelError::Unfit(words)) if words.contains("JSON")),
                    "{result:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_conversation_that_the_model_begins_gets_a_beginning() {
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let messages = vec![message(Role::Assistant, "Hello."), message(Role::User, "Hi.")];
    let anthropic =
        body(ProviderKind::Anthropic, &ModelRequest { messages: messages.into(), ..request("provider") })
            .await;
    let roles: Vec<_> = anthropic["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
}
