//! What is asked.

use serde_json::{Value, json};
use throughline_actors::ports::model::{AnswerFormat, ModelRequest};
use throughline_schemas::event::generation::Role;

use crate::llm::providers::ModelOptions;
use crate::llm::providers::request::{instructions, instructions_for_json, sampling, turns};

/// The request's body.
pub(super) fn body(request: &ModelRequest, options: ModelOptions) -> Value {
    let messages: Vec<Value> =
        turns(&request.messages).into_iter().map(|(role, texts)| message(role, &texts)).collect();
    let mut body = json!({
        "model": request.model,
        "max_tokens": request.max_tokens,
        "messages": messages,
        "stream": request.stream,
    });
    let mut system = instructions(&request.messages);
    match &request.format {
        AnswerFormat::Text => {}
        // The API can be told a schema, not "any JSON"; the answer is checked.
        AnswerFormat::Json(None) => {
            system = Some(instructions_for_json(&request.messages));
        }
        AnswerFormat::Json(Some(schema)) => {
            body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
        }
    }
    if let Some(system) = system {
        body["system"] = system.into();
    }
    let (temperature, top_p) = sampling(request, options);
    if let Some(temperature) = temperature {
        // Its scale ends at 1; beyond that, a request that another provider takes would be refused.
        body["temperature"] = temperature.min(1.0).into();
    }
    if let Some(top_p) = top_p {
        body["top_p"] = top_p.into();
    }
    if !request.stop.is_empty() {
        body["stop_sequences"] = json!(request.stop);
    }
    body
}

fn message(role: Role, texts: &[&str]) -> Value {
    let role = match role {
        Role::System | Role::User => "user",
        Role::Assistant => "assistant",
    };
    match texts {
        [text] => json!({"role": role, "content": text}),
        texts => {
            let parts: Vec<Value> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
            json!({"role": role, "content": parts})
        }
    }
}
