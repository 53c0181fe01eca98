//! Dead letters as JSON.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::dead::{Action, ActionError, Letter, Outcome};

/// All but headers and body.
pub(super) fn summary(letter: &Letter) -> String {
    Value::Object(object(letter)).to_string()
}

/// All of it; a body that is not UTF-8 is `body_base64`.
pub(super) fn whole(letter: &Letter) -> String {
    let mut object = object(letter);
    let headers: Vec<Value> = letter.headers.iter().map(|(name, value)| json!([name, value])).collect();
    object.insert("headers".to_owned(), headers.into());
    match std::str::from_utf8(&letter.body) {
        Ok(body) => object.insert("body".to_owned(), body.into()),
        Err(_) => object.insert("body_base64".to_owned(), BASE64_STANDARD.encode(&letter.body).into()),
    };
    Value::Object(object).to_string()
}

fn object(letter: &Letter) -> Map<String, Value> {
    let pairs = [
        ("id", json!(letter.id)),
        ("buried_at", json!(letter.at)),
        ("stage", json!(letter.stage)),
        ("code", json!(letter.code)),
        ("error", json!(letter.error)),
        ("attempts", json!(letter.attempts)),
        ("workflow_id", json!(letter.workflow())),
        ("subject", json!(letter.subject)),
        ("stream", json!(letter.stream)),
        ("sequence", json!(letter.sequence)),
        ("consumer", json!(letter.consumer)),
        ("worker", json!(letter.worker)),
    ];
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// What an action came to.
pub(super) fn result(letter: u64, action: Action, result: &Result<Outcome, ActionError>) -> String {
    let value = match result {
        Ok(outcome) => json!({
            "id": letter, "result": outcome.record.action, "retry_workflow_id": outcome.record.retry,
            "again": outcome.again,
        }),
        Err(error) => json!({"id": letter, "result": "failed", "action": action, "error": error.to_string()}),
    };
    value.to_string()
}
