//! Answers and failures as JSON, one vocabulary for `ask --json` and `batch`.

use serde::Serialize;
use serde_json::Value;
use throughline_actors::ports::Fault;
use throughline_schemas::{
    FinishReason, Usage, Usd,
    event::generation::{Attempt, AttemptError, Route, Window},
};

use crate::llm::{Answer, Event, GenerateError, ToolCall};

/// An answer.
#[derive(Serialize)]
pub(super) struct Answered<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Tool<'a>>,
    finish_reason: FinishReason,
    model: &'a str,
    provider: &'a str,
    provider_model: &'a str,
    usage: Option<Usage>,
    cost_usd: Option<Usd>,
    cost_is_partial: bool,
    route: &'a Route,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<&'a Window>,
    attempts: &'a [Attempt],
}

#[derive(Serialize)]
struct Tool<'a> {
    id: &'a str,
    name: &'a str,
    arguments: &'a str,
}

impl<'a> Answered<'a> {
    pub(super) fn of(answer: &'a Answer) -> Self {
        let tool = |call: &'a ToolCall| Tool { id: &call.id, name: &call.name, arguments: &call.arguments };
        Self {
            text: &answer.text,
            reasoning: answer.reasoning.as_deref(),
            tool_calls: answer.tool_calls.iter().map(tool).collect(),
            finish_reason: answer.finish_reason,
            model: &answer.model,
            provider: &answer.provider,
            provider_model: &answer.provider_model,
            usage: answer.usage,
            cost_usd: answer.cost_usd,
            cost_is_partial: answer.cost_is_partial,
            route: &answer.route,
            window: answer.window.as_ref(),
            attempts: &answer.attempts,
        }
    }
}

/// No answer.
#[derive(Serialize)]
pub(super) struct Failed {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<AttemptError>,
    message: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<Attempt>,
}

impl Failed {
    /// What is wrong with a request that was not sent.
    pub(super) fn refused(message: String) -> Self {
        Self { code: "invalid_request", error: None, message, retryable: false, attempts: Vec::new() }
    }

    pub(super) fn of(error: &GenerateError) -> Self {
        match error {
            GenerateError::UnknownModel { .. } | GenerateError::Request(_) => {
                Self::refused(error.to_string())
            }
            GenerateError::Unanswered(unanswered) => Self {
                code: "unanswered",
                error: Some(unanswered.error.code()),
                message: unanswered.to_string(),
                retryable: !matches!(unanswered.error.fault(), Fault::Permanent),
                attempts: unanswered.record.attempts.clone(),
            },
        }
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// An event of a streamed answer.
pub(super) fn event(event: &Event) -> Result<Value, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Line<'a> {
        Started { model: &'a str, provider: &'a str },
        Text { text: &'a str },
        Reasoning { text: &'a str },
        Restarted { reason: &'a str },
        Completed { answer: Answered<'a> },
    }
    serde_json::to_value(match event {
        Event::Started { model, provider } => Line::Started { model, provider },
        Event::Text(text) => Line::Text { text },
        Event::Reasoning(text) => Line::Reasoning { text },
        Event::Restarted { reason } => Line::Restarted { reason },
        Event::Completed(answer) => Line::Completed { answer: Answered::of(answer) },
    })
}
