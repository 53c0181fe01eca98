//! The three protocols as their servers speak them, for the adapter to be tested against.

use serde_json::{Value, json};
use throughline::llm::ProviderKind;
use throughline_schemas::{FinishReason, Usage};

use super::server::{Step, answer, head, json as json_answer};

pub(super) const KINDS: [ProviderKind; 3] =
    [ProviderKind::OpenAi, ProviderKind::Anthropic, ProviderKind::Gemini];

/// An answer for a server to give.
#[derive(Clone)]
pub(super) struct Answer<'a> {
    pub text: &'a str,
    pub reasoning: &'a str,
    pub finish: FinishReason,
    pub usage: Option<Usage>,
}

impl<'a> Answer<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self { text, reasoning: "", finish: FinishReason::Stop, usage: None }
    }
}

/// The path under a server's root where a provider of this kind finds its API.
pub(super) fn base_path(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::OpenAi => "/v1",
        ProviderKind::Anthropic | ProviderKind::Gemini => "",
    }
}

fn finish(kind: ProviderKind, reason: FinishReason) -> &'static str {
    let [openai, anthropic, gemini] = match reason {
        FinishReason::Stop => ["stop", "end_turn", "STOP"],
        FinishReason::Length => ["length", "max_tokens", "MAX_TOKENS"],
        FinishReason::ToolCalls => ["tool_calls", "tool_use", "STOP"],
        FinishReason::ContentFilter => ["content_filter", "refusal", "SAFETY"],
        FinishReason::Other => ["a_new_one", "pause_turn", "A_NEW_ONE"],
    };
    match kind {
        ProviderKind::OpenAi => openai,
        ProviderKind::Anthropic => anthropic,
        ProviderKind::Gemini => gemini,
    }
}

fn usage(kind: ProviderKind, usage: Usage) -> Value {
    let Usage { input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, .. } = usage;
    match kind {
        ProviderKind::OpenAi => json!({"prompt_tokens": input_tokens, "completion_tokens": output_tokens,
            "prompt_tokens_details": {"cached_tokens": cached_input_tokens},
            "completion_tokens_details": {"reasoning_tokens": reasoning_tokens}}),
        ProviderKind::Anthropic => json!({"input_tokens": input_tokens - cached_input_tokens,
            "cache_read_input_tokens": cached_input_tokens, "cache_creation_input_tokens": 0,
            "output_tokens": output_tokens, "output_tokens_details": {"thinking_tokens": reasoning_tokens}}),
        ProviderKind::Gemini => json!({"promptTokenCount": input_tokens,
            "cachedContentTokenCount": cached_input_tokens,
            "candidatesTokenCount": output_tokens - reasoning_tokens, "thoughtsTokenCount": reasoning_tokens}),
    }
}

/// The body of a whole answer.
pub(super) fn whole(kind: ProviderKind, answer: &Answer<'_>) -> Value {
    let Answer { text, reasoning, finish: reason, usage: tokens } = answer;
    let stop = finish(kind, *reason);
    let tokens = tokens.map(|tokens| usage(kind, tokens));
    match kind {
        ProviderKind::OpenAi => json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
            "model": "model-2026", "choices": [{"index": 0, "message": {"role": "assistant", "content": text,
            "reasoning_content": reasoning, "refusal": null}, "logprobs": null, "finish_reason": stop}],
            "usage": tokens}),
        ProviderKind::Anthropic => {
            let mut content = vec![json!({"type": "text", "text": text})];
            if !reasoning.is_empty() {
                content.insert(0, json!({"type": "thinking", "thinking": reasoning, "signature": "s"}));
            }
            json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "model-2026",
                "content": content, "stop_reason": stop, "stop_sequence": null, "usage": tokens})
        }
        ProviderKind::Gemini => {
            let mut parts = vec![json!({"text": text})];
            if !reasoning.is_empty() {
                parts.insert(0, json!({"text": reasoning, "thought": true}));
            }
            json!({"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": stop,
                "index": 0}], "usageMetadata": tokens, "modelVersion": "model-2026", "responseId": "r1"})
        }
    }
}

/// The same as a stream, each event on its own; the text in pieces of a word. The last events say that it is complete.
pub(super) fn events(kind: ProviderKind, answer: &Answer<'_>) -> Vec<String> {
    let Answer { text, reasoning, finish: reason, usage: tokens } = answer;
    let stop = finish(kind, *reason);
    let words = |text: &str| text.split_inclusive(' ').map(str::to_owned).collect::<Vec<_>>();
    let tokens = tokens.map(|tokens| usage(kind, tokens));
    let data = |value: Value| format!("data: {value}\n\n");
    match kind {
        ProviderKind::OpenAi => {
            let chunk = |delta: Value, finish: Value, usage: &Value| {
                data(json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                    "model": "model-2026", "usage": usage,
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
            };
            let null = Value::Null;
            let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), null.clone(), &null)];
            events.extend(
                words(reasoning)
                    .iter()
                    .map(|word| chunk(json!({"reasoning_content": word}), null.clone(), &null)),
            );
            events
                .extend(words(text).iter().map(|word| chunk(json!({"content": word}), null.clone(), &null)));
            events.push(chunk(json!({}), stop.into(), &null));
            events.push(data(json!({"id": "chatcmpl-1", "choices": [], "usage": tokens})));
            events.push("data: [DONE]\n\n".to_owned());
            events
        }
        ProviderKind::Anthropic => {
            let event =
                |value: Value| format!("event: {}\n{}", value["type"].as_str().unwrap(), data(value.clone()));
            let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "model-2026",
                "content": [], "stop_reason": null, "stop_sequence": null, "usage": tokens});
            let mut events = vec![event(json!({"type": "message_start", "message": message}))];
            events.push(event(json!({"type": "ping"})));
            let mut index = 0;
            for (kind, field, text) in [("thinking", "thinking", reasoning), ("text", "text", text)] {
                if text.is_empty() {
                    continue;
                }
                let block = json!({"type": kind, field: ""});
                events.push(event(
                    json!({"type": "content_block_start", "index": index, "content_block": block}),
                ));
                for word in words(text) {
                    let delta = json!({"type": format!("{kind}_delta"), field: word});
                    events
                        .push(event(json!({"type": "content_block_delta", "index": index, "delta": delta})));
                }
                events.push(event(json!({"type": "content_block_stop", "index": index})));
                index += 1;
            }
            let delta = json!({"stop_reason": stop, "stop_sequence": null});
            let usage = tokens.map(|tokens| json!({"output_tokens": tokens["output_tokens"]}));
            events.push(event(json!({"type": "message_delta", "delta": delta, "usage": usage})));
            events.push(event(json!({"type": "message_stop"})));
            events
        }
        ProviderKind::Gemini => {
            let chunk = |parts: Value, finish: Value, usage: Value| {
                data(json!({"candidates": [{"content": {"role": "model", "parts": parts},
                    "finishReason": finish, "index": 0}], "usageMetadata": usage, "modelVersion": "model-2026"}))
                    .replace('\n', "\r\n")
            };
            let thoughts = words(reasoning).into_iter().map(|word| json!([{"text": word, "thought": true}]));
            let texts = words(text).into_iter().map(|word| json!([{"text": word}]));
            let mut events: Vec<_> =
                thoughts.chain(texts).map(|parts| chunk(parts, Value::Null, Value::Null)).collect();
            events.push(chunk(json!([{"text": ""}]), stop.into(), tokens.unwrap_or_default()));
            events
        }
    }
}

/// How many of the last events say that the answer is complete.
pub(super) fn closing_events(kind: ProviderKind) -> usize {
    match kind {
        ProviderKind::OpenAi => 3,
        ProviderKind::Anthropic => 2,
        ProviderKind::Gemini => 1,
    }
}

/// An error in the middle of a stream.
pub(super) fn overloaded_event(kind: ProviderKind) -> String {
    match kind {
        ProviderKind::OpenAi => {
            "data: {\"error\":{\"message\":\"words\",\"type\":\"server_error\",\"code\":null}}\n\n".to_owned()
        }
        ProviderKind::Anthropic => "event: error\ndata: {\"type\":\"error\",\"error\":{\"details\":null,\
            \"type\":\"overloaded_error\",\"message\":\"Overloaded\"},\"request_id\":\"req_1\"}\n\n"
            .to_owned(),
        // As plain JSON, which it does.
        ProviderKind::Gemini => {
            "{\r\n  \"error\": {\r\n    \"code\": 503,\r\n    \"message\": \"words\",\r\n    \
            \"status\": \"UNAVAILABLE\"\r\n  }\r\n}\r\n"
                .to_owned()
        }
    }
}

/// Ways to fail with a status.
#[derive(Clone, Copy)]
pub(super) enum Refusal {
    Overloaded,
    BadKey,
    QuotaUsedUp,
    UnknownModel,
    TooLong,
    BadRequest,
}

/// An error with its status, as the provider documents it.
pub(super) fn refuse(kind: ProviderKind, refusal: Refusal) -> Step {
    let openai = |kind: &str, code: Value| json!({"error": {"message": "words", "type": kind, "param": null, "code": code}});
    let invalid = "invalid_request_error";
    let anthropic = |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
    let gemini = |code: u16, status: &str, message: &str, details: Value| json!({"error": {"code": code, "message": message, "status": status, "details": details}});
    let (status, body) = match (kind, refusal) {
        (ProviderKind::OpenAi, Refusal::Overloaded) => (503, openai("server_error", Value::Null)),
        (ProviderKind::OpenAi, Refusal::BadKey) => (401, openai(invalid, json!("invalid_api_key"))),
        (ProviderKind::OpenAi, Refusal::QuotaUsedUp) => {
            (429, openai("insufficient_quota", json!("insufficient_quota")))
        }
        (ProviderKind::OpenAi, Refusal::UnknownModel) => (404, openai(invalid, json!("model_not_found"))),
        (ProviderKind::OpenAi, Refusal::TooLong) => (400, openai(invalid, json!("context_length_exceeded"))),
        (ProviderKind::OpenAi, Refusal::BadRequest) => (400, openai(invalid, Value::Null)),
        (ProviderKind::Anthropic, Refusal::Overloaded) => (529, anthropic("overloaded_error", "Overloaded")),
        (ProviderKind::Anthropic, Refusal::BadKey) => {
            (401, anthropic("authentication_error", "invalid x-api-key"))
        }
        (ProviderKind::Anthropic, Refusal::QuotaUsedUp) => {
            (400, anthropic(invalid, "Your credit balance is too low to access the Anthropic API."))
        }
        (ProviderKind::Anthropic, Refusal::UnknownModel) => (404, anthropic("not_found_error", "model: m")),
        (ProviderKind::Anthropic, Refusal::TooLong) => {
            (400, anthropic(invalid, "prompt is too long: 210000 tokens > 200000 maximum"))
        }
        (ProviderKind::Anthropic, Refusal::BadRequest) => (400, anthropic(invalid, "words")),
        (ProviderKind::Gemini, Refusal::Overloaded) => {
            (503, gemini(503, "UNAVAILABLE", "words", Value::Null))
        }
        (ProviderKind::Gemini, Refusal::BadKey) => {
            let details = json!([{"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]);
            (400, gemini(400, "INVALID_ARGUMENT", "API key not valid.", details))
        }
        (ProviderKind::Gemini, Refusal::QuotaUsedUp) => {
            let details = json!([{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
                {"retryDelay": "17s"}]);
            (429, gemini(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota.", details))
        }
        (ProviderKind::Gemini, Refusal::UnknownModel) => {
            (404, gemini(404, "NOT_FOUND", "models/m is not found", Value::Null))
        }
        (ProviderKind::Gemini, Refusal::TooLong) => {
            let words =
                "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).";
            (400, gemini(400, "INVALID_ARGUMENT", words, Value::Null))
        }
        (ProviderKind::Gemini, Refusal::BadRequest) => {
            (400, gemini(400, "INVALID_ARGUMENT", "words", Value::Null))
        }
    };
    answer(status, &[("content-type", "application/json")], body.to_string())
}

/// An answer whose text the filter withheld.
pub(super) fn filtered(kind: ProviderKind) -> Value {
    match kind {
        ProviderKind::OpenAi | ProviderKind::Anthropic => {
            whole(kind, &Answer { finish: FinishReason::ContentFilter, ..Answer::text("") })
        }
        ProviderKind::Gemini => json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata":
            {"promptTokenCount": 3, "totalTokenCount": 3}, "modelVersion": "model-2026"}),
    }
}

/// A whole answer as a step.
pub(super) fn send_whole(kind: ProviderKind, answer: &Answer<'_>) -> Step {
    json_answer(whole(kind, answer).to_string())
}

/// The head of a stream.
pub(super) fn stream_head() -> Step {
    head(200, &[("content-type", "text/event-stream; charset=utf-8")])
}

/// A stream's events as chunks, with the end of the body.
pub(super) fn send_stream(events: &[String]) -> Vec<Step> {
    let mut steps = vec![stream_head()];
    steps.extend(events.iter().map(chunk));
    steps.push(end());
    steps
}

/// One chunk of a chunked body.
pub(super) fn chunk(bytes: impl AsRef<[u8]>) -> Step {
    let bytes = bytes.as_ref();
    Step::Send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

/// The end of a chunked body.
pub(super) fn end() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}
