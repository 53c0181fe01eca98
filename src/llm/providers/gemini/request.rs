//! What is asked.

use serde_json::{Value, json};
use throughline_actors::ports::model::{AnswerFormat, ModelRequest};
use throughline_schemas::event::generation::Role;

use crate::llm::providers::ModelOptions;
use crate::llm::providers::request::{instructions, sampling, turns};

/// The request's body.
pub(super) fn body(request: &ModelRequest, options: ModelOptions) -> Value {
    let contents: Vec<Value> = turns(&request.messages)
        .into_iter()
        .map(|(role, texts)| {
            let role = match role {
                Role::System | Role::User => "user",
                Role::Assistant => "model",
            };
            json!({"role": role, "parts": parts(&texts)})
        })
        .collect();
    let mut config = json!({"maxOutputTokens": request.max_tokens});
    let (temperature, top_p) = sampling(request, options);
    if let Some(temperature) = temperature {
        config["temperature"] = temperature.into();
    }
    if let Some(top_p) = top_p {
        config["topP"] = top_p.into();
    }
    if !request.stop.is_empty() {
        config["stopSequences"] = json!(request.stop);
    }
    if let AnswerFormat::Json(schema) = &request.format {
        config["responseMimeType"] = "application/json".into();
        if let Some(schema) = schema {
            config["responseJsonSchema"] = schema.clone();
        }
    }
    let mut body = json!({"contents": contents, "generationConfig": config});
    if let Some(system) = instructions(&request.messages) {
        body["systemInstruction"] = json!({"parts": parts(&[&system])});
    }
    body
}

fn parts(texts: &[&str]) -> Vec<Value> {
    texts.iter().map(|text| json!({"text": text})).collect()
}
