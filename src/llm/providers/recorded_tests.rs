//! Exchanges with real providers, recorded by others (`provider_traffic`), read at every odd size of pieces. The wire
//! tests serve them over sockets.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use reqwest::{StatusCode, Url};
use serde_json::{Value, json};
use throughline_actors::ports::model::{AnswerFormat, Delta, DeltaSink, ModelError};
use throughline_schemas::{FinishReason, Usage};
use tokio::time::Instant;

use super::dialect::Dialect;
use super::draft::{self, Draft};
use super::hearer::Hearer;
use super::refusal::Refusal;
use super::stream::Reader;
use super::{ProviderKind, dialect};
use crate::http_client::credential::Redactor;

const MAX_BYTES: usize = 8 << 20;

/// Hears everything.
#[derive(Default)]
struct Ear(Mutex<(String, String)>);

impl DeltaSink for Ear {
    fn delta(&self, delta: Delta<'_>) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match delta {
            Delta::Text(text) => heard.0.push_str(text),
            Delta::Reasoning(text) => heard.1.push_str(text),
        }
    }
}

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

fn kind(family: &str) -> Option<(ProviderKind, &'static str)> {
    Some(match family {
        "openai_chat" => (ProviderKind::OpenAi, "http://h/v1"),
        "anthropic_messages" => (ProviderKind::Anthropic, "http://h"),
        "gemini_generate" => (ProviderKind::Gemini, "http://h"),
        _ => return None,
    })
}

fn body(case: &Value) -> Vec<u8> {
    match case["sse_raw_b64"].as_str() {
        Some(encoded) => base64::engine::general_purpose::STANDARD.decode(encoded).unwrap(),
        None => case["body_text"].as_str().unwrap().as_bytes().to_vec(),
    }
}

type Outcome = Result<(Draft, Option<Usage>), ModelError>;

fn whole(dialect: &dyn Dialect, status: u16, body: &[u8]) -> Outcome {
    let redactor = Redactor::default();
    if status != 200 {
        return Err(Refusal::read(body, &redactor).classify(StatusCode::from_u16(status).unwrap()));
    }
    let received = |unusable: draft::Unusable| unusable.error("");
    let raw = draft::parse(body, &redactor).map_err(received)?;
    let read = dialect.read(&raw).and_then(|draft| draft.check(&AnswerFormat::Text));
    Ok((read.map_err(received)?, dialect.usage(&raw)))
}

fn streamed(dialect: &dyn Dialect, body: &[u8], size: usize) -> Outcome {
    let redactor = Arc::new(Redactor::default());
    let ear = Ear::default();
    let mut hearer = Hearer::new(&ear, &redactor, Instant::now());
    let mut assembly = dialect.assembly(MAX_BYTES);
    let mut reader = Reader::new(assembly.as_mut(), &mut hearer, &redactor, MAX_BYTES);
    for piece in body.chunks(size) {
        reader.push(piece)?;
    }
    reader.end()?;
    hearer.finish();
    let raw = std::mem::take(assembly.raw());
    let read = dialect.read(&raw).and_then(|draft| draft.check(&AnswerFormat::Text));
    let draft = read.map_err(|unusable| unusable.error(""))?;
    // What was heard is what the whole form says.
    let heard = ear.0.into_inner().unwrap();
    assert_eq!(heard, (draft.text.clone(), draft.reasoning.clone()));
    Ok((draft, dialect.usage(&raw)))
}

/// Records that are not right about the exchange, each with what is wrong in it.
const WRONG_RECORDS: [(&str, &str); 1] = [(
    "vercel-ai:packages/google/src/__fixtures__/google-stream-no-args-tool-call.chunks.txt#0",
    "four calls whose arguments come in pieces (which has to be asked for) are listed as thirteen calls",
)];

/// What is wrong with the outcome, by what the record expects of it.
fn difference(case: &Value, outcome: &Outcome) -> Option<String> {
    let expected = &case["expected"];
    let (draft, usage) = match outcome {
        Err(error) => return (expected_error(case) != Some(class(error))).then(|| format!("{error:?}")),
        Ok(_) if expected_error(case).is_some() => return Some("it came out as an answer".to_owned()),
        Ok(answer) => answer,
    };
    let text = ["text", "refusal"].iter().find_map(|name| draft::word(&expected[*name]));
    let number = |name: &str| expected[name].as_u64().unwrap_or(0);
    let tools: Vec<Value> = draft.tool_calls.iter().map(tool_call).collect();
    let mut expected_tools: Vec<Value> =
        expected["tool_calls"].as_array().unwrap().iter().map(expected_tool).collect();
    if expected["finish_reason"] == "function_call" && expected_tools.is_empty() {
        // The record knows only the new form.
        expected_tools.clone_from(&tools);
    }
    let said = usage.is_some() == (expected["input_tokens"].is_u64());
    let usage = usage.unwrap_or_default();
    let (input, output) = counts(case);
    let parts = [
        ("text", draft.text == text.unwrap_or_default()),
        ("reasoning", draft.reasoning == expected["reasoning"].as_str().unwrap_or_default()),
        ("tool calls", tools == expected_tools),
        ("finish reason", draft.finish.raw == draft::word(&expected["finish_reason"])),
        ("normalised finish reason", draft.finish.reason == finish_reason(case)),
        ("completeness", expected["complete"] == true),
        ("whether there is usage", said),
        ("input tokens", usage.input_tokens == input),
        ("output tokens", usage.output_tokens == output),
        ("cached tokens", usage.cached_input_tokens == number("cached_tokens")),
        ("reasoning tokens", usage.reasoning_tokens == number("reasoning_tokens")),
    ];
    let wrong: Vec<_> = parts.iter().filter(|(_, right)| !right).map(|(part, _)| *part).collect();
    (!wrong.is_empty()).then(|| format!("{}: {draft:?} {usage:?}", wrong.join(", ")))
}

fn tool_call(call: &throughline_actors::ports::model::ToolCall) -> Value {
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

/// The table of finish reasons, written down once more.
fn finish_reason(case: &Value) -> FinishReason {
    let expected = &case["expected"];
    let has = |name: &str| !expected[name].as_array().unwrap().is_empty();
    let is_refusal = expected["text"] == "" && draft::word(&expected["refusal"]).is_some();
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
        ModelError::BadResponse(_) => "unusable",
        ModelError::Credentials
        | ModelError::QuotaExhausted(_)
        | ModelError::ContextTooLong(_)
        | ModelError::RateLimited
        | ModelError::Unreachable(_)
        | ModelError::CutShort(_)
        | ModelError::TimedOut(_)
        | ModelError::TooLarge(_) => "something else",
    }
}

/// Every odd size up to 15, and some beyond.
fn sizes() -> impl Iterator<Item = usize> {
    (1..=15).step_by(2).chain([63, 509, 4093, usize::MAX])
}

#[test]
fn every_recorded_exchange_is_understood_in_pieces_of_any_size() {
    let Some(cases) = cases() else { return };
    let (mut counts, mut wrong) = (BTreeMap::<_, (usize, usize, usize)>::new(), Vec::new());
    let mut left_out = BTreeMap::<_, usize>::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let family = case["family"].as_str().unwrap();
        let Some((kind, base_url)) = kind(family) else {
            *left_out.entry(family).or_default() += 1;
            continue;
        };
        let dialect = dialect(kind, Url::parse(base_url).unwrap()).unwrap();
        let body = body(case);
        let count = counts.entry(family).or_default();
        let differences: Vec<String> = if case["body_kind"] == "sse" {
            count.1 += 1;
            sizes()
                .filter_map(|size| {
                    let found = difference(case, &streamed(dialect.as_ref(), &body, size.min(body.len())))?;
                    Some(format!("in pieces of {size}: {found}"))
                })
                .collect()
        } else {
            count.0 += 1;
            let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
            difference(case, &whole(dialect.as_ref(), status, &body)).into_iter().collect()
        };
        count.2 += usize::from(expected_error(case).is_some());
        if let Some((_, why)) = WRONG_RECORDS.iter().find(|(wrong, _)| *wrong == id) {
            eprintln!("not compared: {id}: {why}");
            assert!(!differences.is_empty(), "{id} is right after all");
        } else if let Some(first) = differences.first() {
            wrong.push(format!("{id}: {first}\n  expected {}", case["expected"]));
        }
    }
    for (family, (whole, streams, errors)) in &counts {
        eprintln!("{family}: {whole} whole, {streams} streams; {errors} of them are errors");
    }
    eprintln!("families that are not supported: {left_out:?}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    let total: usize = counts.values().map(|(whole, streams, _)| whole + streams).sum();
    assert_eq!((cases.len(), total), (987, 704));
}
