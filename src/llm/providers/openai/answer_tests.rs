#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::http_client::credential::{Credential, Redactor};
use crate::llm::providers::document::{self, Documents};
use throughline_actors::ports::contract::model::request;
use throughline_actors::ports::model::ModelError;
use throughline_schemas::FinishReason;

fn read_bytes(body: &[u8], redactor: &Redactor) -> Result<(ParsedAnswer, Value), Unusable> {
    let Documents::Answer(raw) = document::read(body, redactor, |_| false)? else { panic!("it is a stream") };
    Ok((super::read(&raw)?.without_thinking().check(&request("p"))?, raw))
}

fn read(answer: &Value) -> Result<ParsedAnswer, Unusable> {
    Ok(read_bytes(answer.to_string().as_bytes(), &Redactor::default())?.0)
}

fn read_choice(choice: &Value) -> Result<ParsedAnswer, Unusable> {
    read(&json!({"model": "m", "choices": [choice]}))
}

fn complaint<T: std::fmt::Debug>(result: Result<T, Unusable>) -> String {
    let error = result.unwrap_err().error("text/html, 9 bytes");
    let (ModelError::BadResponse(words) | ModelError::Unfit(words) | ModelError::LimitUsedUp(words)) = error
    else {
        panic!("{error:?}")
    };
    words
}

#[test]
fn an_answer_is_text_or_parts_of_text() {
    let cases = [
        json!("Hello"),
        json!([{"type": "text", "text": "Hel"}, {"type": "image"}, {"type": "output_text", "text": "lo"}]),
    ];
    for content in cases {
        let answer = read_choice(&json!({"message": {"content": content}, "finish_reason": "stop"})).unwrap();
        assert_eq!((answer.text.as_str(), answer.finish.reason), ("Hello", FinishReason::Stop));
    }
}

#[test]
fn finish_reasons_have_one_vocabulary() {
    let cases = [
        (json!("stop"), FinishReason::Stop),
        (json!("length"), FinishReason::Length),
        (json!("tool_calls"), FinishReason::ToolCalls),
        (json!("function_call"), FinishReason::ToolCalls),
        (json!("content_filter"), FinishReason::ContentFilter),
        (json!("eos_token"), FinishReason::Stop),
        (json!("a_new_one"), FinishReason::Other),
        (json!(null), FinishReason::Other),
        (json!(7), FinishReason::Other),
    ];
    for (said, expected) in cases {
        let answer = read_choice(&json!({"message": {"content": "x"}, "finish_reason": said})).unwrap();
        assert_eq!(answer.finish.reason, expected, "{said}");
    }
}

#[test]
fn a_refusal_is_an_answer_and_says_so() {
    let messages = [
        json!({"content": null, "refusal": "I cannot help with that."}),
        json!({"content": "", "refusal": "I cannot help with that."}),
        json!({"content": [{"type": "refusal", "refusal": "I cannot help with that."}]}),
    ];
    for message in messages {
        let answer = read_choice(&json!({"message": message, "finish_reason": "stop"})).unwrap();
        assert_eq!(answer.text, "I cannot help with that.");
        assert_eq!(answer.finish.reason, FinishReason::ContentFilter);
    }
}

#[test]
fn an_empty_answer_is_never_a_success() {
    for message in [
        json!({}),
        json!({"content": null}),
        json!({"content": ""}),
        json!({"content": [], "tool_calls": []}),
    ] {
        let complaint = complaint(read_choice(&json!({"message": message, "finish_reason": "stop"})));
        assert!(complaint.starts_with("it has no content, finish_reason stop (text/html, "), "{complaint}");
    }
    let cut =
        read_choice(&json!({"message": {"content": ""}, "finish_reason": "length"})).unwrap_err().error("");
    assert!(
        matches!(cut, ModelError::LimitUsedUp(_)) && cut.to_string().contains("raise max_tokens"),
        "{cut}"
    );
    for choices in [json!([]), json!(null), json!({}), json!([null]), json!(["x"])] {
        let complaint = complaint(read(&json!({"id": "x", "choices": choices, "note": "canary"})));
        assert!(complaint.contains("its fields are: choices, id, note"), "{complaint}");
        assert!(!complaint.contains("canary"), "{complaint}");
    }
    // Unless it asks for tools to be called.
    let tools = json!({"message": {"content": null, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}, "finish_reason": "tool_calls"});
    assert_eq!(read_choice(&tools).unwrap().finish.reason, FinishReason::ToolCalls);
    // What the filter withheld would be withheld again.
    let withheld = read_choice(&json!({"message": {"content": null}, "finish_reason": "content_filter"}));
    assert!(matches!(withheld.unwrap_err().error(""), ModelError::ContentFiltered(_)));
}

#[test]
fn odd_usage_is_no_usage_and_parts_stay_within_the_whole() {
    let usage_of = |usage: Value| {
        let choice = json!([{"message": {"content": "x"}, "finish_reason": "stop"}]);
        super::usage(&json!({"choices": choice, "usage": usage}))
    };
    let usage = |input, output, cached, reasoning| {
        Some(Usage {
            input_tokens: input,
            output_tokens: output,
            cached_input_tokens: cached,
            reasoning_tokens: reasoning,
            ..Usage::default()
        })
    };
    assert_eq!(
        usage_of(json!({"prompt_tokens": 24, "completion_tokens": 4, "total_tokens": 28,
            "prompt_tokens_details": {"cached_tokens": 23},
            "completion_tokens_details": {"reasoning_tokens": 2}})),
        usage(24, 4, 23, 2)
    );
    assert_eq!(
        usage_of(json!({"prompt_tokens": 24, "completion_tokens": 4, "prompt_cache_hit_tokens": 20})),
        usage(24, 4, 20, 0)
    );
    assert_eq!(
        usage_of(json!({"prompt_tokens": 24, "completion_tokens": 4,
            "prompt_tokens_details": {"cached_tokens": 99}, "completion_tokens_details": "none"})),
        usage(24, 4, 24, 0)
    );
    for odd in [
        json!(null),
        json!({}),
        json!([1, 2]),
        json!({"prompt_tokens": -1, "completion_tokens": 4}),
        json!({"prompt_tokens": 1.5, "completion_tokens": 4}),
        json!({"prompt_tokens": "24", "completion_tokens": 4}),
        json!({"prompt_tokens": 24, "completion_tokens": null}),
        json!({"prompt_tokens": 1e30, "completion_tokens": 4}),
    ] {
        assert_eq!(usage_of(odd.clone()), None, "{odd}");
    }
}

#[test]
fn what_is_not_an_answer_is_described_but_not_repeated() {
    let read = |body: &[u8]| complaint(read_bytes(body, &Redactor::default()));
    assert_eq!(read(b""), "it has no body (text/html, 9 bytes)");
    let html = read(b"<!DOCTYPE html>\n<html>\x1b[2J<h1>502</h1></html>");
    assert!(html.contains("begins \"<!DOCTYPE html> <html> [2J<h1>502</h1></html>\""), "{html}");
    assert!(read("x".repeat(100_000).as_bytes()).len() < 300);
    assert!(read(b"{\"choices\":[{\"mess").contains("EOF"), "cut short");
    assert!(read("[".repeat(10_000).as_bytes()).contains("recursion"), "too deep");
    assert!(read(b"[]").contains("it is an array"));
    assert!(read(b"3").contains("it is a single value"));
}

#[test]
fn a_byte_order_mark_and_an_empty_error_are_tolerated() {
    let body = "\u{FEFF}{\"error\":null,\"choices\":[{\"message\":{\"content\":\"x\"}}]}";
    let (answer, _) = read_bytes(body.as_bytes(), &Redactor::default()).unwrap();
    assert_eq!((answer.text.as_str(), answer.model), ("x", None));
}

#[test]
fn an_echoed_key_is_in_nothing_that_leaves() {
    let redactor = Redactor::new([&Credential::new("sk-canary")]);
    let body = json!({"model": "m", "choices": [{"message": {"content": "sk-canary"}}], "sk-canary": ["x sk-canary"]});
    let answer = read_bytes(body.to_string().as_bytes(), &redactor).unwrap();
    assert!(!format!("{answer:?}").contains("canary"));
    for body in
        ["<p>sk-canary</p>", "{\"error\": \"bad sk-canary\"}", "{\"sk-canary\": 1}", "[\"sk-canary\"]"]
    {
        let error = read_bytes(body.as_bytes(), &redactor).unwrap_err().error("");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn an_error_with_a_success_status_is_read_like_any_other() {
    let error = |error: Value| read(&json!({"error": error, "choices": []})).unwrap_err().error("");
    assert!(matches!(error(json!({"message": "boom", "code": 500})), ModelError::Server(_)));
    assert!(matches!(error(json!({"message": "boom"})), ModelError::Server(_)));
    assert!(matches!(error(json!({"message": "slow down", "code": 429})), ModelError::RateLimited(_)));
    assert!(matches!(error(json!({"message": "boom", "code": "400"})), ModelError::BadRequest(_)));
    let overloaded = json!({"message": "Overloaded", "type": "overloaded_error"});
    assert!(matches!(error(overloaded), ModelError::Server(_)));
}
