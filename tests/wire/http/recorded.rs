//! Exchanges with real providers, recorded by others (`provider_traffic`), served byte for byte on loopback. How
//! streams are cut makes no difference: `src/llm/providers/recorded_tests.rs` shows it for every odd size of pieces,
//! this for some, over sockets.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use serde_json::{Value, json};
use throughline::llm::ProviderKind;
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{
    ModelAnswer, ModelError, ModelFailure, ModelRequest, Models, ToolCall,
};
use throughline_schemas::FinishReason;

use super::dialects::{chunk, end};
use super::models::limits;
use super::server::{Server, Step, answer, head};
use super::streams::{Collector, provider};
use throughline::llm::CallLimits;

fn cases() -> Option<Vec<Value>> {
    let corpora = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let Ok(file) = std::fs::File::open(corpora.join("provider_traffic/cases.jsonl.gz")) else {
        eprintln!("left out: no provider_traffic (set THROUGHLINE_CORPORA)");
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn kind(family: &str) -> Option<ProviderKind> {
    match family {
        "openai_chat" => Some(ProviderKind::OpenAi),
        "anthropic_messages" => Some(ProviderKind::Anthropic),
        "gemini_generate" => Some(ProviderKind::Gemini),
        _ => None,
    }
}

fn body(case: &Value) -> Vec<u8> {
    match case["sse_raw_b64"].as_str() {
        Some(encoded) => base64::engine::general_purpose::STANDARD.decode(encoded).unwrap(),
        None => case["body_text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// The recorded answer, its body in chunks of this size if it was a stream.
fn steps(case: &Value, size: usize) -> Vec<Step> {
    let headers: Vec<(&str, &str)> = case["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "transfer-encoding")
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
    let body = body(case);
    if case["body_kind"] != "sse" {
        return vec![answer(status, &headers, body)];
    }
    let mut steps = vec![head(status, &headers)];
    steps.extend(body.chunks(size.min(body.len())).map(chunk));
    steps.push(end());
    steps
}

type Outcome = Result<ModelAnswer, ModelFailure>;

/// Records that are not right about the exchange, each with what is wrong in it.
const WRONG_RECORDS: [(&str, &str); 1] = [(
    "vercel-ai:packages/google/src/__fixtures__/google-stream-no-args-tool-call.chunks.txt#0",
    "four calls whose arguments come in pieces (which has to be asked for) are listed as thirteen calls",
)];

/// What is wrong with the outcome, by what the record expects of it.
fn difference(case: &Value, outcome: &Outcome) -> Option<String> {
    let expected = &case["expected"];
    let answer = match outcome {
        Err(failure) => {
            let known = expected_error(case).is_some_and(|error| error == class(&failure.error));
            return (!known).then(|| format!("{failure:?}"));
        }
        Ok(_) if expected_error(case).is_some() => return Some("it came out as an answer".to_owned()),
        Ok(answer) => answer,
    };
    let text = ["text", "refusal"].iter().find_map(|name| word(&expected[*name]));
    let (text, thought) = without_tags(text.unwrap_or_default());
    let number = |name: &str| expected[name].as_u64().unwrap_or(0);
    let tools: Vec<Value> = answer.tool_calls.iter().map(tool_call).collect();
    let mut expected_tools: Vec<Value> =
        expected["tool_calls"].as_array().unwrap().iter().map(expected_tool).collect();
    if expected["finish_reason"] == "function_call" && expected_tools.is_empty() {
        // The record knows only the new form.
        expected_tools.clone_from(&tools);
    }
    let said = answer.usage.is_some() == (expected["input_tokens"].is_u64());
    let usage = answer.usage.unwrap_or_default();
    let (input, output) = counts(case);
    let parts = [
        ("text", answer.text == text),
        ("reasoning", answer.reasoning.as_deref() == thought.or_else(|| word(&expected["reasoning"]))),
        ("tool calls", tools == expected_tools),
        ("finish reason", answer.finish_reason_raw.as_deref() == word(&expected["finish_reason"])),
        ("normalised finish reason", answer.finish_reason == finish_reason(case)),
        ("completeness", expected["complete"] == true),
        ("whether there is usage", said),
        ("input tokens", usage.input_tokens == input),
        ("output tokens", usage.output_tokens == output),
        ("cached tokens", usage.cached_input_tokens == number("cached_tokens")),
        ("reasoning tokens", usage.reasoning_tokens == number("reasoning_tokens")),
    ];
    let wrong: Vec<_> = parts.iter().filter(|(_, right)| !right).map(|(part, _)| *part).collect();
    (!wrong.is_empty()).then(|| format!("{}: {answer:?}", wrong.join(", ")))
}

fn word(value: &Value) -> Option<&str> {
    value.as_str().filter(|word| !word.is_empty())
}

/// The records leave reasoning in the text where the server did.
fn without_tags(text: &str) -> (&str, Option<&str>) {
    for (open, close) in [("<think>", "</think>"), ("<thinking>", "</thinking>")] {
        if let Some((thought, rest)) = text.strip_prefix(open).and_then(|rest| rest.split_once(close)) {
            return (rest.trim_start(), Some(thought));
        }
    }
    (text, None)
}

fn tool_call(call: &ToolCall) -> Value {
    json!({"id": call.id, "name": call.name, "arguments": parsed(&call.arguments)})
}

fn expected_tool(call: &Value) -> Value {
    let id = call["id"].as_str().unwrap_or_default();
    json!({"id": id, "name": call["name"], "arguments": parsed(call["arguments"].as_str().unwrap_or_default())})
}

fn parsed(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| arguments.into())
}

/// Tokens of both sides in our way of counting, from the record's, which is the provider's.
fn counts(case: &Value) -> (u64, u64) {
    let expected = &case["expected"];
    let number = |name: &str| expected[name].as_u64().unwrap_or(0);
    let (input, output) = (number("input_tokens"), number("output_tokens"));
    match case["family"].as_str().unwrap() {
        "gemini_generate" => {
            (input + told(case, "toolUsePromptTokenCount"), output + number("reasoning_tokens"))
        }
        "anthropic_messages" => {
            (input + told(case, "cache_creation_input_tokens") + number("cached_tokens"), output)
        }
        // xAI counts reasoning beside the completion.
        _ if told(case, "total_tokens") == input + output + number("reasoning_tokens") => {
            (input, output + number("reasoning_tokens"))
        }
        _ => (input, output),
    }
}

/// The last number of this name in the body, found without the adapter's code.
fn told(case: &Value, name: &str) -> u64 {
    let body = String::from_utf8(body(case)).unwrap();
    let field = format!("\"{name}\":");
    let numbers = body.match_indices(&field).map(|(at, found)| {
        let rest = body[at + found.len()..].trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().unwrap_or(0)
    });
    numbers.last().unwrap_or(0)
}

/// The table of finish reasons, written down again.
fn finish_reason(case: &Value) -> FinishReason {
    let expected = &case["expected"];
    let has = |name: &str| !expected[name].as_array().unwrap().is_empty();
    let is_refusal = expected["text"] == "" && word(&expected["refusal"]).is_some();
    match expected["finish_reason"].as_str().unwrap_or_default() {
        _ if is_refusal => FinishReason::ContentFilter,
        "STOP" if has("tool_calls") => FinishReason::ToolCalls,
        "stop" | "end_turn" | "stop_sequence" | "STOP" => FinishReason::Stop,
        "length" | "max_tokens" | "MAX_TOKENS" => FinishReason::Length,
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "content_filter" | "refusal" | "SAFETY" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// The class of the error that the record stands for; `None` if it is an answer.
fn expected_error(case: &Value) -> Option<&'static str> {
    let expected = &case["expected"];
    if expected["error"].is_object() {
        let status = case["status"].as_u64().filter(|status| *status != 200);
        let code = ["status", "code"].iter().find_map(|name| expected["error"][*name].as_u64());
        return Some(match (status.or(code), expected["error"]["code"].as_str()) {
            (Some(404), _) => "unknown model",
            (Some(400), _) | (None, Some("tool_use_failed")) => "bad request",
            _ => "server",
        });
    }
    if expected["complete"] != true {
        return Some("unusable");
    }
    let has = |name: &str| expected[name].as_str().is_some_and(|text| !text.is_empty());
    let is_empty = !has("text") && !has("refusal") && expected["tool_calls"] == json!([]);
    match expected["finish_reason"].as_str() {
        // An answer in the old form of tool calls, which the record does not list.
        Some("function_call") => None,
        Some("content_filter" | "refusal") if is_empty => Some("filtered"),
        _ if is_empty => Some("unusable"),
        _ => None,
    }
}

fn class(error: &ModelError) -> &'static str {
    match error {
        ModelError::BadRequest(_) => "bad request",
        ModelError::UnknownModel(_) => "unknown model",
        ModelError::ContentFiltered(_) => "filtered",
        ModelError::Server(_) => "server",
        ModelError::BadResponse(_) | ModelError::Unfit(_) | ModelError::LimitUsedUp(_) => "unusable",
        ModelError::Credentials(_)
        | ModelError::Forbidden(_)
        | ModelError::QuotaExhausted(_)
        | ModelError::ContextTooLong(_)
        | ModelError::RateLimited(_)
        | ModelError::Unreachable(_)
        | ModelError::CutShort(_)
        | ModelError::TimedOut(_)
        | ModelError::TooLarge(_) => "something else",
    }
}

/// What is wrong with the case, over sockets.
async fn check(case: &Value, kind: ProviderKind, server: &Server, size: usize) -> Option<String> {
    let limits = CallLimits { max_response_bytes: 1 << 20, ..limits() };
    server.script(steps(case, size));
    let stream = case["body_kind"] == "sse";
    let collector = Collector::default();
    let request = ModelRequest { stream, ..request("provider") };
    let outcome = provider(kind, server, &[], limits).generate(&request, &collector).await;
    if let (true, Ok(answer)) = (stream, &outcome)
        && answer.text != collector.text()
    {
        return Some(format!("heard {:?}, not {:?}", collector.text(), answer.text));
    }
    difference(case, &outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_recorded_exchange_comes_out_as_it_was() {
    let Some(cases) = cases() else { return };
    let mut counts = BTreeMap::<_, (usize, usize, usize)>::new();
    let (mut left_out, mut wrong) = (BTreeMap::<_, usize>::new(), Vec::new());
    let server = Server::start().await;
    for case in &cases {
        let (id, family) = (case["id"].as_str().unwrap(), case["family"].as_str().unwrap());
        let Some(kind) = kind(family) else {
            *left_out.entry(family).or_default() += 1;
            continue;
        };
        let count = counts.entry(family).or_default();
        let is_stream = case["body_kind"] == "sse";
        *(if is_stream { &mut count.1 } else { &mut count.0 }) += 1;
        count.2 += usize::from(expected_error(case).is_some());
        let sizes: &[usize] = if is_stream { &[61, 1021, usize::MAX] } else { &[0] };
        for size in sizes {
            let difference = check(case, kind, &server, *size).await;
            if let Some((_, why)) = WRONG_RECORDS.iter().find(|(wrong, _)| *wrong == id) {
                eprintln!("not compared: {id}: {why}");
                assert!(difference.is_some(), "{id} is right after all");
            } else if let Some(difference) = difference {
                wrong
                    .push(format!("{id} in pieces of {size}: {difference}\n  expected {}", case["expected"]));
                break;
            }
        }
    }
    for (family, (whole, streams, errors)) in &counts {
        eprintln!("{family}: {whole} whole answers, {streams} streams; {errors} of them are errors");
    }
    eprintln!("families that are not supported: {left_out:?}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    let total: usize = counts.values().map(|(whole, streams, _)| whole + streams).sum();
    assert_eq!((cases.len(), total), (987, 704));
}
