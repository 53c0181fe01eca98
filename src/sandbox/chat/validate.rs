//! Refuses what the real API refuses, in its words, so that a client's mistake shows up before it costs money.

use serde_json::Value;

use super::error::ApiError;
use super::request::{ChatMessage, ChatRequest};

/// The context window of the sandbox's models, in tokens.
const CONTEXT_TOKENS: u64 = 128_000;
const ROLES: [&str; 6] = ["system", "assistant", "user", "function", "tool", "developer"];
const MAX_TEMPERATURE: f64 = 2.0;

/// What is left of a request once it is known to be good.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    pub(super) model: &'a str,
    pub(super) messages: &'a [ChatMessage<'a>],
    pub(super) max_tokens: Option<u64>,
}

pub(super) fn check<'a>(request: &'a ChatRequest<'a>, models: &[String]) -> Result<Checked<'a>, ApiError> {
    let Some(model) = request.model.as_ref().map(|model| &*model.0).filter(|model| !model.is_empty()) else {
        return Err(ApiError::invalid("you must provide a model parameter"));
    };
    if !models.iter().any(|known| known == model) {
        return Err(ApiError::model_not_found(model));
    }
    let Some(messages) = request.messages.as_deref() else { return Err(missing("messages")) };
    check_messages(messages)?;
    if let Some(temperature) = request.temperature.filter(|t| !(0.0..=MAX_TEMPERATURE).contains(t)) {
        let (bound, code) = if temperature < 0.0 {
            ("below minimum value. Expected a value >= 0", "decimal_below_min_value")
        } else {
            ("above maximum value. Expected a value <= 2", "decimal_above_max_value")
        };
        let message = format!("Invalid 'temperature': decimal {bound}, but got {temperature} instead.");
        return Err(ApiError::invalid(message).param("temperature").code(code));
    }
    at_least_one("n", request.n)?;
    if request.n.is_some_and(|n| n > 1) {
        return Err(ApiError::invalid("The sandbox answers with one choice only; leave 'n' out.").param("n"));
    }
    let (old, new) = (request.max_tokens, request.max_completion_tokens);
    if old.is_some() && new.is_some() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(ApiError::invalid(message).param("max_tokens").code("invalid_parameter_combination"));
    }
    let max_tokens = at_least_one("max_tokens", old)?.or(at_least_one("max_completion_tokens", new)?);
    if request.stream_options.is_some() && !request.stream.unwrap_or(false) {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(ApiError::invalid(message).param("stream_options"));
    }
    Ok(Checked { model, messages, max_tokens })
}

pub(super) fn check_context(prompt_tokens: u64) -> Result<(), ApiError> {
    if prompt_tokens <= CONTEXT_TOKENS {
        return Ok(());
    }
    let message = format!(
        "This model's maximum context length is {CONTEXT_TOKENS} tokens. However, your messages resulted in {prompt_tokens} tokens. Please reduce the length of the messages."
    );
    Err(ApiError::invalid(message).param("messages").code("context_length_exceeded"))
}

fn check_messages(messages: &[ChatMessage<'_>]) -> Result<(), ApiError> {
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(ApiError::invalid(message).param("messages").code("empty_array"));
    }
    for (index, message) in messages.iter().enumerate() {
        let role = &*message.role.0;
        if !ROLES.contains(&role) {
            let text = format!(
                "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
            );
            return Err(ApiError::invalid(text)
                .param(format!("messages[{index}].role"))
                .code("invalid_value"));
        }
        // Only an assistant turn may be empty: it can consist of tool calls.
        if message.content.is_none() && role != "assistant" {
            let text = "Invalid value for 'content': expected a string, got null.";
            return Err(ApiError::invalid(text).param(format!("messages.[{index}].content")));
        }
    }
    Ok(())
}

fn at_least_one(name: &'static str, value: Option<i64>) -> Result<Option<u64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    if let Ok(value) = u64::try_from(value)
        && value > 0
    {
        return Ok(Some(value));
    }
    let message = format!(
        "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
    );
    Err(ApiError::invalid(message).param(name).code("integer_below_min_value"))
}

fn missing(name: &'static str) -> ApiError {
    ApiError::invalid(format!("Missing required parameter: '{name}'."))
        .param(name)
        .code("missing_required_parameter")
}

/// A parameter, what it has to be, and whether a value is that.
type Expectation = (&'static str, &'static str, fn(&Value) -> bool);

/// Says what is wrong with a body that is not a chat request. Only called when it is known not to be one, so it
/// may take its time.
pub(super) fn diagnose(body: &[u8], error: &serde_json::Error) -> ApiError {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return ApiError::invalid(
            "We could not parse the JSON body of your request. The API expects a JSON payload.",
        );
    };
    let wrong = |name: &'static str, expected: &str, got: &Value| {
        let got = type_name(got);
        let message = format!("Invalid type for '{name}': expected {expected}, but got {got} instead.");
        ApiError::invalid(message).param(name).code("invalid_type")
    };
    if !value.is_object() {
        return ApiError::invalid("The JSON body of your request must be an object.");
    }
    let expectations: [Expectation; 8] = [
        ("model", "a string", Value::is_string),
        ("messages", "an array of objects", |v| v.as_array().is_some_and(|a| a.iter().all(Value::is_object))),
        ("max_tokens", "an integer", Value::is_i64),
        ("max_completion_tokens", "an integer", Value::is_i64),
        ("temperature", "a decimal", Value::is_number),
        ("n", "an integer", Value::is_i64),
        ("stream", "a boolean", Value::is_boolean),
        ("stream_options", "an object", Value::is_object),
    ];
    for (name, expected, holds) in expectations {
        if let Some(got) = value.get(name).filter(|got| !got.is_null() && !holds(got)) {
            return wrong(name, expected, got);
        }
    }
    ApiError::invalid(format!("The request could not be read: {error}."))
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a decimal",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn refusal(body: &str) -> ApiError {
        let models = ["sandbox-small".to_owned()];
        match serde_json::from_str::<ChatRequest<'_>>(body) {
            Ok(request) => check(&request, &models).expect_err("a bad request"),
            Err(error) => diagnose(body.as_bytes(), &error),
        }
    }

    #[test]
    fn every_mistake_is_named_as_the_real_api_names_it() {
        let with = |rest: &str| {
            format!(r#"{{"model":"sandbox-small","messages":[{{"role":"user","content":"hi"}}],{rest}}}"#)
        };
        let cases = [
            (
                r#"{"model":"sandbox-small"}"#.to_owned(),
                400,
                Some("messages"),
                Some("missing_required_parameter"),
            ),
            (r#"{"messages":[]}"#.to_owned(), 400, None, None),
            (r#"{"model":"gpt-9","messages":[]}"#.to_owned(), 404, None, Some("model_not_found")),
            (
                r#"{"model":"sandbox-small","messages":[]}"#.to_owned(),
                400,
                Some("messages"),
                Some("empty_array"),
            ),
            (
                r#"{"model":"sandbox-small","messages":"hi"}"#.to_owned(),
                400,
                Some("messages"),
                Some("invalid_type"),
            ),
            (
                r#"{"model":"sandbox-small","messages":[{"role":"king","content":"hi"}]}"#.to_owned(),
                400,
                Some("messages[0].role"),
                Some("invalid_value"),
            ),
            (
                r#"{"model":"sandbox-small","messages":[{"role":"user","content":null}]}"#.to_owned(),
                400,
                Some("messages.[0].content"),
                None,
            ),
            (r#"{"model":"sandbox-small","messages":[{"content":"hi"}]}"#.to_owned(), 400, None, None),
            (with(r#""max_tokens":0"#), 400, Some("max_tokens"), Some("integer_below_min_value")),
            (with(r#""max_tokens":"9""#), 400, Some("max_tokens"), Some("invalid_type")),
            (
                with(r#""max_tokens":9,"max_completion_tokens":9"#),
                400,
                Some("max_tokens"),
                Some("invalid_parameter_combination"),
            ),
            (with(r#""temperature":2.5"#), 400, Some("temperature"), Some("decimal_above_max_value")),
            (with(r#""n":2"#), 400, Some("n"), None),
            (with(r#""stream_options":{}"#), 400, Some("stream_options"), None),
            ("{".to_owned(), 400, None, None),
            ("[]".to_owned(), 400, None, None),
        ];
        for (body, status, param, code) in cases {
            assert_eq!(refusal(&body).parts(), (status, param, code), "{body}");
        }
    }

    #[test]
    fn content_may_be_parts_and_an_assistant_turn_may_have_none() {
        let body = r#"{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[]},
            {"role":"user","content":[{"type":"text","text":"where is "},{"type":"text","text":"it?"}]}]}"#;
        let request: ChatRequest<'_> = serde_json::from_str(body).unwrap();
        let checked = check(&request, &["m".to_owned()]).unwrap();
        assert_eq!(checked.messages[1].text(), "where is it?");
    }

    #[test]
    fn a_prompt_beyond_the_window_is_refused() {
        assert!(check_context(CONTEXT_TOKENS).is_ok());
        let error = check_context(CONTEXT_TOKENS + 1).unwrap_err();
        assert_eq!(error.parts(), (400, Some("messages"), Some("context_length_exceeded")));
    }
}
