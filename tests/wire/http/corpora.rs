//! What real servers answered, recorded by others: `openai_error_behaviour`.

use std::path::PathBuf;

use serde_json::Value;
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::{ModelAnswer, ModelError, ModelFailure, Models, NoSink};

use super::models::{limits, models_at};
use super::server::{Server, answer};

/// The records of one file, or `None` (said on standard error) where the corpora are absent.
fn records(file: &str) -> Option<Vec<Value>> {
    let corpora = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"), PathBuf::from);
    let path = corpora.join("openai_error_behaviour").join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("left out: no {file} (set THROUGHLINE_CORPORA)");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

async fn replay(status: u16, headers: &[(&str, &str)], body: &str) -> Result<ModelAnswer, ModelFailure> {
    let server = Server::start().await;
    server.script([answer(status, headers, body)]);
    models_at(&server.url("/v1"), limits()).generate(&request("provider"), &NoSink).await
}

/// The class, in the words of the recorded behaviour.
fn class(result: &Result<ModelAnswer, ModelFailure>) -> &'static str {
    match result {
        Ok(_) => "answer",
        Err(failure) => match failure.error {
            ModelError::Credentials(_) => "credentials",
            ModelError::BadRequest(_) => "bad request",
            ModelError::QuotaExhausted(_) => "quota",
            ModelError::UnknownModel(_) => "not found",
            ModelError::ContextTooLong(_) => "too long",
            ModelError::ContentFiltered(_) => "filtered",
            ModelError::RateLimited(_) => "rate limited",
            ModelError::Server(_) => "server",
            ModelError::BadResponse(_) | ModelError::Unfit(_) | ModelError::LimitUsedUp(_) => "unusable",
            ModelError::Forbidden(_) => "forbidden",
            ModelError::Unreachable(_)
            | ModelError::CutShort(_)
            | ModelError::TimedOut(_)
            | ModelError::TooLarge(_) => "transport",
        },
    }
}

/// The recorder kept the first 1500 bytes as they came, framing of chunks included.
fn unframed(body: &str) -> String {
    let mut rest = body;
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { return body.to_owned() };
        let bytes = after.as_bytes();
        let chunk = &bytes[..size.min(bytes.len())];
        whole.push_str(&String::from_utf8_lossy(chunk));
        rest = after.get(size + 2..).unwrap_or_default();
    }
    if whole.is_empty() { body.to_owned() } else { whole }
}

/// What the record itself says that it is, told from its status and its plain text without the adapter's code.
fn recorded_class(status: u16, body: &str) -> &'static str {
    let has = |needle: &str| body.contains(needle);
    match status {
        _ if has("insufficient_quota") => "quota",
        _ if has("context_length_exceeded") || has("exceed_context_size_error") => "too long",
        // Streamed without being asked; the recorder cut some short.
        200 if body.starts_with("data:") => match (has("[DONE]"), has("\"error\":")) {
            (_, true) => "server",
            (true, false) => "answer",
            // Without the marker of the end, but with the reason to stop.
            (false, false) if has("\"finish_reason\":\"") => "answer",
            (false, false) => "unusable",
        },
        200 => {
            let whole = serde_json::from_str::<Value>(body).is_ok();
            let has_text = has("\"content\":") && !has("\"content\":null") && !has("\"choices\":[]");
            if whole && has_text { "answer" } else { "unusable" }
        }
        400 if has("Invalid model name") => "not found",
        401 | 403 => "credentials",
        404 => "not found",
        429 => "rate limited",
        500.. => "server",
        _ => "bad request",
    }
}

#[tokio::test]
async fn every_recorded_answer_of_five_servers_is_understood() {
    let Some(records) = records("observed.jsonl") else { return };
    let mut wrong = Vec::new();
    for record in &records {
        let status: u16 = record["status"].as_str().unwrap().parse().unwrap();
        let body = unframed(record["body"].as_str().unwrap());
        let content_type = record["content_type"].as_str().unwrap();
        let result = replay(status, &[("content-type", content_type)], &body).await;
        let (got, expected) = (class(&result), recorded_class(status, &body));
        if got != expected {
            wrong.push(format!(
                "{} {} {status}: {got}, not {expected}: {body}",
                record["server"], record["case"]
            ));
        }
        if let Err(failure) = result {
            assert!(failure.to_string().len() < 700, "{failure}");
        }
    }
    assert_eq!(records.len(), 200);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), records.len(), wrong.join("\n"));
}

#[tokio::test]
async fn every_reported_error_body_is_understood() {
    let Some(records) = records("reported_error_bodies.jsonl") else { return };
    let expected = [
        "server",
        "server",
        "quota",
        "rate limited",
        "rate limited",
        "server",
        "too long",
        "server",
        "rate limited",
        "rate limited",
    ];
    assert_eq!(records.len(), expected.len());
    for (record, expected) in records.iter().zip(expected) {
        let status = u16::try_from(record["status"].as_u64().unwrap()).unwrap();
        let headers: Vec<(&str, &str)> = record["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
            .collect();
        let body = record["body"].as_str().map_or_else(|| record["body"].to_string(), str::to_owned);
        let result = replay(status, &headers, &body).await;
        assert_eq!(class(&result), expected, "{record} {result:?}");
        let facts = result.unwrap_err().facts;
        let wait = record["headers"]["retry-after"].as_str().map(|wait| wait.parse().unwrap());
        assert_eq!(facts.retry_after.map(|wait| wait.as_secs()), wait, "{record}");
        let should_retry = record["headers"]["x-should-retry"].as_str().map(|word| word == "true");
        assert_eq!(facts.should_retry, should_retry, "{record}");
    }
}
