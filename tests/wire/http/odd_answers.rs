//! Good answers as servers and gateways give them, which is not always as the protocol has it: each is read, once. And
//! what looks like an answer and is none.

use std::time::Duration;

use serde_json::{Value, json};
use throughline::llm::{CallLimits, ModelProviders, ProviderKind, ProviderSettings, ProviderSpec};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{ModelAnswer, ModelError, ModelFailure, ModelRequest, Models, NoSink};
use throughline_schemas::FinishReason;
use tokio::time::Instant;

use super::clock;
use super::dialects::{base_path, chunk, end, stream_head};
use super::models::limits;
use super::server::{Server, Step, answer, head};

pub(super) type Outcome = Result<ModelAnswer, ModelFailure>;

/// What comes of a call that these steps answer.
pub(super) async fn outcome(
    kind: ProviderKind,
    settings: ProviderSettings,
    limits: CallLimits,
    stream: bool,
    steps: Vec<Step>,
) -> Outcome {
    let server = Server::start().await;
    server.script(steps);
    let spec = ProviderSpec {
        name: "provider".to_owned(),
        kind,
        base_url: server.url(base_path(kind)),
        keys: Vec::new(),
        options: std::collections::HashMap::new(),
        limits,
        settings,
    };
    let models = ModelProviders::new(vec![spec], &clock()).unwrap();
    models.generate(&ModelRequest { stream, ..request("provider") }, &NoSink).await
}

async fn of_stream(events: &[Value]) -> Outcome {
    of_body(true, Some("text/event-stream"), format!("{}data: [DONE]\n\n", framed(events)).as_bytes()).await
}

fn framed(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect::<Vec<_>>().concat()
}

async fn of_whole(body: &Value) -> Outcome {
    of_body(false, Some("application/json"), body.to_string().as_bytes()).await
}

async fn of_body(stream: bool, label: Option<&str>, body: &[u8]) -> Outcome {
    let headers: Vec<_> = label.into_iter().map(|label| ("content-type", label)).collect();
    let steps = vec![answer(200, &headers, body)];
    outcome(ProviderKind::OpenAi, ProviderSettings::default(), limits(), stream, steps).await
}

fn delta(delta: &Value, finish: &Value) -> Value {
    json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

fn message(content: &str, finish: &str) -> Value {
    json!({"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant",
        "content": content}, "finish_reason": finish}], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
}

#[tokio::test]
async fn a_refusal_in_pieces_is_a_whole_refusal() {
    for beside in [json!(null), json!("")] {
        let piece = |words: &str| delta(&json!({"content": beside, "refusal": words}), &Value::Null);
        let events =
            [piece(""), piece("I"), piece(" will"), piece(" not."), delta(&json!({}), &json!("stop"))];
        let refused = of_stream(&events).await.unwrap();
        assert_eq!(
            (refused.text.as_str(), refused.finish_reason),
            ("I will not.", FinishReason::ContentFilter)
        );
    }
    let whole = json!({"choices": [{"message": {"content": null, "refusal": "I will not."}, "finish_reason": "stop"}]});
    assert_eq!(of_whole(&whole).await.unwrap().finish_reason, FinishReason::ContentFilter);
}

#[tokio::test]
async fn an_answer_with_its_reason_to_stop_is_complete_whatever_follows() {
    let events = [
        delta(&json!({"content": "It ships."}), &Value::Null),
        delta(&json!({}), &json!("stop")),
        json!({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
    ];
    let begun = || {
        let events = events.iter().map(|event| chunk(format!("data: {event}\n\n")));
        [stream_head()].into_iter().chain(events).collect::<Vec<_>>()
    };
    let heartbeats = Step::Drip(b"3\r\n:\n\n\r\n".repeat(1_000), Duration::from_millis(3));
    for (story, last) in [("the end", end()), ("silence", Step::Hang), ("heartbeats", heartbeats)] {
        let started = Instant::now();
        let steps = begun().into_iter().chain([last]).collect();
        let limits = CallLimits { read: Duration::from_secs(9), total: Duration::from_secs(20), ..limits() };
        let settings = ProviderSettings::default();
        let answer = outcome(ProviderKind::OpenAi, settings, limits, true, steps).await.unwrap();
        assert_eq!((answer.text.as_str(), answer.usage.unwrap().output_tokens), ("It ships.", 4), "{story}");
        assert!(started.elapsed() < Duration::from_secs(6), "{story}");
    }
}

#[tokio::test]
async fn a_reason_to_stop_with_every_piece_says_nothing_of_the_end() {
    let piece = |text: &str, finish: &str| chunk(framed(&[delta(&json!({"content": text}), &json!(finish))]));
    for finish in ["stop", "null"] {
        let pieces =
            [piece("It ", finish), piece("ships ", finish), Step::Wait(Duration::from_millis(2_500))];
        let last = [piece("tomorrow.", "stop"), end()];
        let steps = [stream_head()].into_iter().chain(pieces).chain(last).collect();
        let result = outcome(ProviderKind::OpenAi, ProviderSettings::default(), limits(), true, steps).await;
        assert_eq!(result.unwrap().text, "It ships tomorrow.");
    }
}

#[tokio::test]
async fn the_marker_alone_is_enough_only_where_a_provider_is_declared_so() {
    let steps = || {
        let text = delta(&json!({"content": "It ships."}), &Value::Null);
        vec![stream_head(), chunk(format!("data: {text}\n\n")), chunk("data: [DONE]\n\n"), end()]
    };
    let cut =
        || steps().into_iter().filter(|step| !format!("{step:?}").contains("91, 68, 79, 78, 69")).collect();
    let of = async |settings: &ProviderSettings, steps| {
        outcome(ProviderKind::OpenAi, settings.clone(), limits(), true, steps).await
    };
    let usual = ProviderSettings::default();
    assert!(matches!(of(&usual, steps()).await.unwrap_err().error, ModelError::BadResponse(_)));
    let declared = ProviderSettings { sends_finish_reason: false, ..ProviderSettings::default() };
    assert_eq!(of(&declared, steps()).await.unwrap().text, "It ships.");
    assert!(matches!(of(&declared, cut()).await.unwrap_err().error, ModelError::BadResponse(_)));
}

#[tokio::test]
async fn half_an_answer_is_never_taken_for_a_whole_one() {
    let failed = json!({"choices": [{"index": 0, "message": {"content": "Half an ans"}, "finish_reason": null,
        "error": {"code": 502, "message": "Upstream stopped"}}]});
    let failure = of_whole(&failed).await.unwrap_err();
    assert!(
        matches!(&failure.error, ModelError::Server(words) if words.contains("Upstream stopped")),
        "{failure}"
    );
    let slow = json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop",
        "error": {"code": 429, "message": "too many"}}]});
    let failure = of_stream(&[delta(&json!({"content": "Half"}), &Value::Null), slow]).await.unwrap_err();
    assert!(matches!(failure.error, ModelError::RateLimited(_)), "{failure}");
    for word in ["network_error", "insufficient_system_resource", "abort", "cancelled", "engine_failure"] {
        let failure = of_whole(&message("Half an ans", word)).await.unwrap_err();
        assert!(matches!(&failure.error, ModelError::Server(words) if words.contains(word)), "{failure}");
        let events = [delta(&json!({"content": "Half"}), &Value::Null), delta(&json!({}), &json!(word))];
        let failure = of_stream(&events).await.unwrap_err();
        assert!(matches!(failure.error, ModelError::Server(_)), "{failure}");
    }
}

#[tokio::test]
async fn an_error_inside_a_success_has_its_class_and_its_words() {
    let too_long: fn(&ModelError) -> bool = |error| matches!(error, ModelError::ContextTooLong(_));
    let quota: fn(&ModelError) -> bool = |error| matches!(error, ModelError::QuotaExhausted(_));
    let limited: fn(&ModelError) -> bool = |error| matches!(error, ModelError::RateLimited(_));
    let server: fn(&ModelError) -> bool = |error| matches!(error, ModelError::Server(_));
    let cases = [
        (
            "event: error\ndata: {\"code\": 400, \"message\": \"maximum context length is 4096 tokens\"}\n\n"
                .to_owned(),
            too_long,
            "4096",
        ),
        (
            json!({"code": 30_001, "message": "your balance is insufficient", "data": null}).to_string(),
            quota,
            "balance",
        ),
        (
            json!({"base_resp": {"status_code": 1002, "status_msg": "rate limit triggered"}, "choices": []})
                .to_string(),
            limited,
            "triggered",
        ),
        (
            json!({"success": false, "errors": [{"code": 7, "message": "Unexpected shutdown"}]}).to_string(),
            server,
            "shutdown",
        ),
        (json!({"code": 500, "msg": "404 NOT_FOUND", "success": false}).to_string(), server, "NOT_FOUND"),
        (
            json!({"object": "error", "message": "Internal error", "code": 50_001}).to_string(),
            server,
            "Internal",
        ),
        ("data: {\"error\": \"The engine is overloaded\"}\n\n".to_owned(), server, "overloaded"),
        ("event: error\ndata: upstream connection reset\n\n".to_owned(), server, "reset"),
    ];
    for (body, is_class, words) in cases {
        for label in [Some("application/json"), Some("text/event-stream"), None] {
            let failure = of_body(true, label, body.as_bytes()).await.unwrap_err();
            assert!(is_class(&failure.error), "{label:?} {body}: {failure:?}");
            assert!(failure.to_string().contains(words), "{body}: {failure}");
        }
    }
}

#[tokio::test]
async fn what_a_body_is_is_seen_in_its_first_bytes() {
    let whole = message("It ships.", "stop").to_string();
    let pieces = [
        delta(&json!({"content": "It "}), &Value::Null),
        delta(&json!({"content": "ships."}), &json!("stop")),
    ];
    let framed = framed(&pieces);
    let bodies = [
        whole.clone(),
        format!("\u{FEFF}{whole}"),
        format!(": wait\n\n: wait\n\n{whole}\n\n"),
        format!("data: {whole}\n\ndata: [DONE]\n\n"),
        framed.clone(),
        format!("\u{FEFF}{framed}"),
        format!("\r\n: wait\r\n\r\n{}", framed.replace('\n', "\r\n")),
        framed.replace('\n', "\r"),
        format!("[{},\n{}]", pieces[0], pieces[1]),
        format!("{}\n{}\n", pieces[0], pieces[1]),
    ];
    let labels = [
        Some("application/json"),
        Some("text/event-stream"),
        Some("text/plain"),
        Some("text/html"),
        Some("application/x-ndjson"),
        None,
    ];
    for body in &bodies {
        for label in labels {
            for stream in [false, true] {
                let answer = of_body(stream, label, body.as_bytes()).await;
                assert_eq!(answer.unwrap().text, "It ships.", "{label:?} {stream} {body}");
            }
        }
    }
}

#[tokio::test]
async fn halves_of_pairs_and_numbers_that_are_none_are_read() {
    let piece = |text: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"score\":NaN,\"finish_reason\":null}}]}}\n\n"
        )
    };
    let last = format!("data: {}\n\n", delta(&json!({}), &json!("stop")));
    for (pieces, expected) in [
        (["Hi \\ud83d", "\\ude00!"], "Hi \u{1F600}!"),
        (["Hi \\ud83d", "bye"], "Hi \u{FFFD}bye"),
        (["\\ude00 Hi", " \\uD83D"], "\u{FFFD} Hi \u{FFFD}"),
    ] {
        let body: String = pieces.iter().map(|text| piece(text)).chain([last.clone()]).collect();
        let answer = of_body(true, Some("text/event-stream"), body.as_bytes()).await.unwrap();
        assert_eq!(answer.text, expected);
        assert_eq!(answer.raw["choices"][0]["message"]["content"], expected);
    }
    let whole = b"{\"choices\":[{\"message\":{\"content\":\"cut \\ud83d\"},\"finish_reason\":\"length\"}],\"score\":-Infinity}";
    let answer = of_body(false, None, whole).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.finish_reason), ("cut \u{FFFD}", FinishReason::Length));
}

#[tokio::test]
async fn a_chain_of_proxies_may_add_more_than_a_hundred_headers() {
    let names: Vec<String> = (0..200).map(|number| format!("x-hop-{number}")).collect();
    let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v")).collect();
    headers.push(("content-type", "application/json"));
    let steps = vec![answer(200, &headers, message("It ships.", "stop").to_string())];
    let result = outcome(ProviderKind::OpenAi, ProviderSettings::default(), limits(), false, steps).await;
    assert_eq!(result.unwrap().text, "It ships.");
}

#[tokio::test]
async fn a_whole_answer_has_time_to_think_behind_its_headers() {
    let body = message("It ships.", "stop").to_string();
    let steps = vec![
        head(200, &[("content-type", "application/json")]),
        Step::Wait(Duration::from_millis(900)),
        chunk(body),
        end(),
    ];
    let limits =
        CallLimits { read: Duration::from_millis(300), first_token: Duration::from_secs(5), ..limits() };
    let result = outcome(ProviderKind::OpenAi, ProviderSettings::default(), limits, false, steps).await;
    assert_eq!(result.unwrap().text, "It ships.");
}

#[tokio::test]
async fn reasoning_between_tags_is_no_text() {
    for text in [
        "<think>\na plan\n</think>\n\nIt ships.",
        "a plan</think>It ships.",
        "[THINK]a plan[/THINK]It ships.",
    ] {
        let whole = of_whole(&message(text, "stop")).await.unwrap();
        let pieces: Vec<Value> = text
            .char_indices()
            .map(|(at, c)| delta(&json!({"content": &text[at..at + c.len_utf8()]}), &Value::Null))
            .chain([delta(&json!({}), &json!("stop"))])
            .collect();
        let streamed = of_stream(&pieces).await.unwrap();
        for answer in [whole, streamed] {
            assert_eq!(
                (answer.text.as_str(), answer.reasoning.unwrap().trim()),
                ("It ships.", "a plan"),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn parallel_calls_that_all_have_one_number_are_told_apart() {
    let call = |id: Option<&str>, name: &str, arguments: &str| {
        let mut call =
            json!({"index": 0, "type": "function", "function": {"name": name, "arguments": arguments}});
        if let Some(id) = id {
            call["id"] = id.into();
        }
        call
    };
    let streams = [
        vec![json!([call(Some("a"), "f", "{\"x\":1}"), call(Some("b"), "g", "{\"y\":2}")])],
        vec![
            json!([call(Some("a"), "f", "")]),
            json!([call(None, "", "{\"x\":1}")]),
            json!([call(Some("b"), "g", "")]),
            json!([call(None, "", "{\"y\":2}")]),
        ],
        vec![json!([call(None, "f", "{\"x\":1}")]), json!([call(None, "g", "{\"y\":2}")])],
        vec![
            json!([call(Some("a"), "f", "{\"x\":")]),
            json!([call(Some("a"), "f", "1}")]),
            json!([call(Some("b"), "g", "{\"y\":2}")]),
        ],
    ];
    for calls in streams {
        let mut events: Vec<Value> =
            calls.iter().map(|calls| delta(&json!({"tool_calls": calls}), &Value::Null)).collect();
        events.push(delta(&json!({}), &json!("tool_calls")));
        let answer = of_stream(&events).await.unwrap();
        let told: Vec<_> =
            answer.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
        assert_eq!(told, [("f", "{\"x\":1}"), ("g", "{\"y\":2}")], "{calls:?}");
    }
}

#[tokio::test]
async fn what_was_counted_is_known_whatever_it_is_called_and_what_follows() {
    let with = |usage: Value| {
        let mut answer = message("It ships.", "stop");
        answer["usage"] = usage;
        answer
    };
    for (usage, expected) in [
        (json!({"prompt_tokens": 100, "completion_tokens": 5, "cached_tokens": 60}), (100, 5, 60, 0)),
        (
            json!({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 10}),
            (100, 5, 60, 0),
        ),
        (
            json!({"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 105, "cache_read_input_tokens": 60}),
            (100, 5, 60, 0),
        ),
        (json!({"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}), (10, 5, 0, 0)),
        (json!({"prompt_tokens": 10.0, "completion_tokens": 5.0}), (10, 5, 0, 0)),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 22,
            "completion_tokens_details": {"reasoning_tokens": 7}}),
            (10, 12, 0, 7),
        ),
        (
            json!({"prompt_tokens": 10, "completion_tokens": 12, "total_tokens": 22,
            "completion_tokens_details": {"reasoning_tokens": 7}}),
            (10, 12, 0, 7),
        ),
        (
            json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11,
            "completion_tokens_details": {"reasoning_tokens": 25}}),
            (9, 27, 0, 25),
        ),
    ] {
        let answer = of_whole(&with(usage.clone())).await.unwrap();
        let told = answer.usage.unwrap();
        let told = (told.input_tokens, told.output_tokens, told.cached_input_tokens, told.reasoning_tokens);
        assert_eq!(told, expected, "{usage}");
    }
    let nothing = of_whole(&with(json!({"prompt_tokens": 0, "completion_tokens": 0}))).await.unwrap();
    assert!(nothing.usage.is_none() && nothing.facts.counted_nothing);
    let stated = of_whole(&with(json!({"prompt_tokens": 9, "completion_tokens": 2, "cost": 0.000_070_2})))
        .await
        .unwrap();
    assert_eq!(stated.facts.stated_cost.unwrap().to_string(), "0.0000702");
    for last in [json!({"prompt_tokens": 0, "completion_tokens": 0}), json!({}), json!(null)] {
        let events = [
            json!({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 4}}),
            json!({"choices": [], "usage": last}),
        ];
        let usage = of_stream(&events).await.unwrap().usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens), (9, 4), "{last}");
    }
}

#[tokio::test]
async fn blocks_may_be_numbered_as_the_server_likes() {
    let event =
        |value: Value| chunk(format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap()));
    let text = |index: Value, text: &str| json!({"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}});
    let start = |index: Value| json!({"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}});
    let streams = [
        vec![start(json!(1)), text(json!(1), "It "), text(json!(1), "ships.")],
        vec![start(json!(0)), text(json!(0), "It "), start(json!(0)), text(json!(0), "ships.")],
        vec![text(json!(0), "It "), text(json!(0), "ships.")],
        vec![start(json!(null)), text(json!(null), "It "), text(json!(null), "ships.")],
    ];
    for middle in streams {
        let begin = json!({"type": "message_start", "message": {"role": "assistant", "content": [], "stop_reason": null}});
        let stop = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}});
        let events = [begin].into_iter().chain(middle.clone()).chain([stop]).map(event);
        let steps = [stream_head()].into_iter().chain(events).chain([end()]).collect();
        let result =
            outcome(ProviderKind::Anthropic, ProviderSettings::default(), limits(), true, steps).await;
        assert_eq!(result.unwrap().text, "It ships.", "{middle:?}");
    }
}
