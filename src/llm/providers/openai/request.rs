//! What is asked.

use serde_json::{Value, json};
use throughline_actors::ports::model::{AnswerFormat, ModelRequest};
use throughline_schemas::event::generation::Role;

use crate::llm::providers::request::{instructions, instructions_for_json, sampling, turns};
use crate::llm::providers::{MaxTokensField, ModelOptions};

/// The request's body.
pub(super) fn body(request: &ModelRequest, options: ModelOptions) -> Value {
    let mut system = instructions(&request.messages);
    let mut body = json!({"model": request.model, "stream": request.stream});
    match options.max_tokens_field {
        MaxTokensField::MaxTokens => body["max_tokens"] = request.max_tokens.into(),
        MaxTokensField::MaxCompletionTokens => body["max_completion_tokens"] = request.max_tokens.into(),
    }
    let (temperature, top_p) = sampling(request, options);
    if let Some(temperature) = temperature {
        body["temperature"] = temperature.into();
    }
    if let Some(top_p) = top_p {
        body["top_p"] = top_p.into();
    }
    if !request.stop.is_empty() {
        body["stop"] = json!(request.stop);
    }
    if request.stream {
        // Without it, a stream does not say what it cost.
        body["stream_options"] = json!({"include_usage": true});
    }
    match &request.format {
        AnswerFormat::Text => {}
        AnswerFormat::Json(None) => {
            body["response_format"] = json!({"type": "json_object"});
            // The mode is refused where no message mentions JSON.
            if !request.messages.iter().any(|message| message.content.to_ascii_lowercase().contains("json")) {
                system = Some(instructions_for_json(&request.messages));
            }
        }
        AnswerFormat::Json(Some(schema)) => {
            body["response_format"] =
                json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}});
        }
    }
    let system = system.map(|system| json!({"role": "system", "content": system}));
    let turns = turns(&request.messages).into_iter().map(|(role, texts)| {
        let role = match role {
            Role::System | Role::User => "user",
            Role::Assistant => "assistant",
        };
        // Parts in one text: templates take nothing else.
        let mut turn = json!({"role": role});
        // Moved, not copied as the macro would.
        turn["content"] = Value::String(texts.join("\n\n"));
        turn
    });
    body["messages"] = system.into_iter().chain(turns).collect();
    body
}
