//! Rows for tests.
#![allow(clippy::unwrap_used)]

use throughline_schemas::{FailureCode, FinishReason, SessionId, Usage, Usd, WorkflowId};

use super::{Answer, Row, Side};

fn dollars(text: &str) -> Usd {
    Usd::new(text.parse().unwrap())
}

pub(super) fn answered(text: &str, cost: &str, latency_ms: u64) -> Side {
    Side::Answered(Answer {
        text: text.to_owned(),
        model: "small".to_owned(),
        provider: "openai".to_owned(),
        finish_reason: FinishReason::Stop,
        usage: Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() },
        cost_usd: Some(dollars(cost)),
        cost_is_partial: false,
        attempts: 1,
        latency_ms,
    })
}

pub(super) fn failed(cost: &str) -> Side {
    Side::Failed {
        code: FailureCode::TimedOut,
        message: "too slow".to_owned(),
        attempts: 3,
        cost_usd: Some(dollars(cost)),
    }
}

pub(super) fn row(workflow: &str, before: Side, after: Side) -> Row {
    Row {
        workflow: WorkflowId::new(workflow).unwrap(),
        session: SessionId::new("s").unwrap(),
        user_input: "Where is <b>my order</b>?".to_owned(),
        before,
        after,
    }
}
