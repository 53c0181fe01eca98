//! What is written down about every attempt.

use std::time::Duration;

use throughline_schemas::{
    Millis, Timestamp,
    event::generation::{Attempt, CostUnknown, Message, Purpose, Route, Window},
};

use super::{AskError, ModelTarget};
use crate::{
    cost::cost,
    ports::model::{CallFacts, ModelAnswer},
};

/// What was asked, why, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Which models might have been asked, and why these.
    pub route: Route,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
}

/// A prompt as it was sent to one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The messages.
    pub messages: Vec<Message>,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// How the prompt was made to fit; `None` if there was nothing to do.
    pub window: Option<Window>,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// An attempt of which nothing is known yet.
pub(super) fn unsent(target: &ModelTarget, purpose: Purpose, started_at: Timestamp) -> Attempt {
    Attempt {
        provider: target.provider.clone(),
        model: target.model.clone(),
        started_at,
        duration_ms: Millis::default(),
        sent: false,
        purpose: (purpose != Purpose::Answer).then_some(purpose),
        http_status: None,
        request_id: None,
        waited_ms: None,
        first_token_ms: None,
        retry_after_ms: None,
        retry_in_ms: None,
        usage: None,
        cost_usd: None,
        cost_unknown: None,
        may_have_been_billed: false,
        error_class: None,
        error_code: None,
        error: None,
    }
}

pub(super) fn succeeded(attempt: &mut Attempt, answer: &ModelAnswer, target: &ModelTarget) {
    attempt.sent = true;
    attempt.usage = answer.usage;
    facts(attempt, &answer.facts);
    charge(attempt, target);
}

pub(super) fn failed(attempt: &mut Attempt, error: &AskError, target: &ModelTarget) {
    attempt.sent = error.was_sent();
    attempt.error = Some(error.to_string());
    attempt.error_code = Some(error.code());
    attempt.error_class = error.class();
    if let AskError::Failed(failure) = error {
        attempt.usage = failure.usage;
        attempt.may_have_been_billed = failure.may_have_been_billed();
        facts(attempt, &failure.facts);
        if attempt.may_have_been_billed {
            charge(attempt, target);
        }
    }
}

fn facts(attempt: &mut Attempt, facts: &CallFacts) {
    attempt.http_status = facts.http_status;
    attempt.request_id.clone_from(&facts.request_id);
    attempt.retry_after_ms = facts.retry_after.map(millis);
    attempt.first_token_ms = facts.first_token.map(millis);
}

fn charge(attempt: &mut Attempt, target: &ModelTarget) {
    let known: Result<_, CostUnknown> = cost(attempt.usage.as_ref(), target.price.as_ref());
    attempt.cost_usd = known.ok();
    attempt.cost_unknown = known.err();
}
