#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::http_client::credential::Credential;

fn classify(status: u16, body: &Value) -> ModelError {
    classify_text(status, &body.to_string())
}

fn classify_text(status: u16, body: &str) -> ModelError {
    ProviderError::read(body.as_bytes(), &Redactor::default()).classify(StatusCode::from_u16(status).unwrap())
}

fn words(error: &ModelError) -> String {
    error.to_string()
}

#[test]
fn the_code_counts_before_the_status() {
    let quota =
        json!({"error": {"message": "m", "type": "insufficient_quota", "code": "insufficient_quota"}});
    assert!(matches!(classify(429, &quota), ModelError::QuotaExhausted(_)));
    assert!(matches!(classify(403, &quota), ModelError::QuotaExhausted(_)));
    let long = json!({"error": {"message": "m", "type": "invalid_request_error", "code": "context_length_exceeded"}});
    assert!(matches!(classify(400, &long), ModelError::ContextTooLong(_)));
    let llama = json!({"error": {"message": "m", "type": "exceed_context_size_error", "code": 400}});
    assert!(matches!(classify(400, &llama), ModelError::ContextTooLong(_)));
    let model =
        json!({"error": {"message": "m", "type": "invalid_request_error", "code": "model_not_found"}});
    assert!(matches!(classify(400, &model), ModelError::UnknownModel(_)));
    let key = json!({"error": {"message": "m", "code": "invalid_api_key"}});
    assert!(matches!(classify(400, &key), ModelError::Credentials(_)));
    let rate = json!({"error": {"message": "m", "type": "tokens", "code": "rate_limit_exceeded"}});
    assert!(matches!(classify(400, &rate), ModelError::RateLimited(_)));
}

#[test]
fn else_the_status_decides() {
    let of = |status| classify(status, &json!({"error": {"message": "m", "code": status, "type": "x"}}));
    assert!(matches!((of(401), of(403)), (ModelError::Credentials(_), ModelError::Forbidden(_))));
    assert!(matches!((of(429), of(410)), (ModelError::RateLimited(_), ModelError::UnknownModel(_))));
    assert!(matches!(of(402), ModelError::QuotaExhausted(_)));
    assert!(matches!(of(404), ModelError::UnknownModel(_)));
    for status in [408, 409, 424, 425, 498, 499, 500, 502, 503, 504, 529, 599] {
        assert!(matches!(of(status), ModelError::Server(_)), "{status}");
    }
    for status in [300, 302, 308, 400, 405, 413, 418, 422, 600] {
        assert!(matches!(of(status), ModelError::BadRequest(_)), "{status}");
    }
}

#[test]
fn the_message_is_found_in_every_shape() {
    let cases = [
        (json!({"error": {"message": "boom", "code": "c"}}), "boom (c) (HTTP 400)"),
        (json!({"error": {"message": "boom", "type": "t", "code": null}}), "boom (t) (HTTP 400)"),
        (json!({"error": "boom"}), "boom (HTTP 400)"),
        (json!([{"error": {"message": "boom", "code": 400}}]), "boom (400) (HTTP 400)"),
        (json!({"detail": "boom"}), "boom (HTTP 400)"),
        (json!({"detail": [{"loc": ["body"], "msg": "boom"}]}), "boom (HTTP 400)"),
        (json!({"object": "error", "message": "boom", "code": 400}), "boom (400) (HTTP 400)"),
        (json!({"error": {"message": "{\"error\": {\"message\": \"boom\"}}"}}), "boom (HTTP 400)"),
        (json!({"error": {"message": "{boom"}}), "{boom (HTTP 400)"),
        (json!({"error": {"message": {"nested": 1}}}), "no message (HTTP 400)"),
        (json!({"errors": {"model": ["is not boom"]}}), "model is not boom (HTTP 400)"),
        (json!({"errors": [{"code": 7003, "message": "boom"}]}), "boom (7003) (HTTP 400)"),
        (json!({"code": 1210, "msg": "boom", "success": false}), "boom (1210) (HTTP 400)"),
        (json!({"title": "boom", "status": 400}), "boom (400) (HTTP 400)"),
        (json!({"detail": {"error": {"message": "boom"}}}), "boom (HTTP 400)"),
        (
            json!({"error": {"message": "Provider returned error", "metadata": {"raw": "{\"msg\": \"boom\"}"}}}),
            "Provider returned error: boom (HTTP 400)",
        ),
        (
            json!({"error": {"message": "Provider returned error", "metadata": {"raw": "boom"}}}),
            "Provider returned error: boom (HTTP 400)",
        ),
        (json!("boom"), "boom (HTTP 400)"),
        (json!(null), "no message (HTTP 400)"),
        (json!([]), "no message (HTTP 400)"),
        (json!(5), "no message (HTTP 400)"),
    ];
    for (body, expected) in cases {
        assert_eq!(classify(400, &body), ModelError::BadRequest(expected.to_owned()), "{body}");
    }
    assert_eq!(
        words(&classify_text(500, "Internal\r\nServer Error")),
        "the provider failed: Internal Server Error (HTTP 500)"
    );
    assert_eq!(words(&classify_text(500, "")), "the provider failed: no message (HTTP 500)");
    assert!(
        words(&classify_text(400, &json!({"error": {"message": "x".repeat(9_999)}}).to_string())).len() < 500
    );
    assert!(words(&classify_text(400, &"[".repeat(9_999))).len() < 500);
}

#[test]
fn the_body_may_ask_to_wait() {
    let wait = |body: Value| ProviderError::of(&body, &Redactor::default()).wait();
    let details = json!([{"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "47s"}]);
    let google = json!({"error": {"code": 429, "message": "m", "details": details}});
    assert_eq!(wait(google.clone()), Some(Duration::from_secs(47)));
    assert_eq!(wait(json!([google])), Some(Duration::from_secs(47)));
    assert_eq!(
        wait(json!({"error": {"message": "Rate limit reached. Please try again in 6.2s."}})),
        Some(Duration::from_millis(6_200))
    );
    assert_eq!(wait(json!({"error": {"message": "Overloaded"}})), None);
    assert_eq!(wait(json!({"error": {"details": [{"retryDelay": "-1s"}, {"retryDelay": 5}, 7]}})), None);
}

#[test]
fn an_echoed_key_is_removed_before_anything_is_cut() {
    let redactor = Redactor::new([&Credential::new("sk-canary-key")]);
    let near_the_cut = format!("{} sk-canary-key", "x".repeat(MAX_MESSAGE_CHARS - 5));
    let bodies = [
        json!({"error": {"message": "Incorrect API key provided: sk-canary-key.", "code": "sk-canary-key"}})
            .to_string(),
        json!({"error": {"message": near_the_cut}}).to_string(),
        "{\"error\": \"\\u0073k-canary-key\"}".to_owned(),
        "<p>sk-canary-key</p>".to_owned(),
    ];
    for body in bodies {
        let refusal = ProviderError::read(body.as_bytes(), &redactor);
        assert!(!format!("{refusal:?}").contains("sk-c"), "{refusal:?}");
    }
}
