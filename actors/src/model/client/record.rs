//! What is written down about every attempt.

use std::{sync::Arc, time::Duration};

use throughline_schemas::{
    Millis, Timestamp,
    event::generation::{Attempt, AttemptError, CostUnknown, Message, Purpose, Route, Window},
};

use super::{GenerationError, ModelTarget};
use crate::{
    dependency::whole_millis,
    model::cost::cost,
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
    pub messages: Arc<Vec<Message>>,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// How the prompt was made to fit; `None` if there was nothing to do.
    pub window: Option<Window>,
}

/// Whether an attempt counts towards the limit on attempts at its model: not if it was only a rate limit that had no
/// room for it.
pub fn counts(attempt: &Attempt) -> bool {
    attempt.purpose.is_none() && !held_back(attempt)
}

/// Whether a rate limit had no room for it.
fn held_back(attempt: &Attempt) -> bool {
    match attempt.error_code {
        Some(AttemptError::Paced) => true,
        // What is too large for a limit has a class: it failed.
        Some(AttemptError::OwnRateLimit) => attempt.error_class.is_none(),
        Some(
            AttemptError::Credentials
            | AttemptError::Forbidden
            | AttemptError::BadRequest
            | AttemptError::QuotaExhausted
            | AttemptError::UnknownModel
            | AttemptError::ContextTooLong
            | AttemptError::ContentFiltered
            | AttemptError::RateLimited
            | AttemptError::Server
            | AttemptError::Unreachable
            | AttemptError::CutShort
            | AttemptError::ConnectTimeout
            | AttemptError::FirstTokenTimeout
            | AttemptError::ReadTimeout
            | AttemptError::TotalTimeout
            | AttemptError::TooLarge
            | AttemptError::BadResponse
            | AttemptError::LimitUsedUp
            | AttemptError::BreakerOpen
            | AttemptError::Unrecognised,
        )
        | None => false,
    }
}

/// How long rate limits have held a request back so far: in workers, and between the deliveries before this one. It
/// follows from the record alone, so that a run that is re-enacted comes to the same.
pub(super) fn held_for(attempts: &[Attempt], delivery: u32) -> Duration {
    let mut all = Duration::ZERO;
    for (index, attempt) in attempts.iter().enumerate() {
        all = all.saturating_add(Duration::from_millis(attempt.waited_ms.unwrap_or_default()));
        let next = attempts.get(index + 1).map_or(delivery, |next| next.delivery);
        if held_back(attempt) && next > attempt.delivery {
            all = all.saturating_add(Duration::from_millis(attempt.retry_in_ms.unwrap_or_default()));
        }
    }
    all
}

/// An attempt of which nothing is known yet.
pub(super) fn unsent(target: &ModelTarget, purpose: Purpose, started_at: Timestamp) -> Attempt {
    Attempt {
        delivery: 1,
        provider: target.provider.clone(),
        model: target.model.clone(),
        name: Some(target.name.clone()),
        started_at,
        duration_ms: Millis::default(),
        sent: false,
        purpose: (purpose != Purpose::Answer).then_some(purpose),
        http_status: None,
        request_id: None,
        waited_ms: None,
        first_token_ms: None,
        retry_after_ms: None,
        should_retry: None,
        retry_in_ms: None,
        jitter: None,
        usage: None,
        cost_usd: None,
        stated_cost_usd: None,
        priced_cost_usd: None,
        cost_unknown: None,
        may_have_been_billed: false,
        error_class: None,
        error_code: None,
        error: None,
        error_detail: None,
    }
}

pub(super) fn succeeded(attempt: &mut Attempt, answer: &ModelAnswer, target: &ModelTarget) {
    attempt.sent = true;
    attempt.usage = answer.usage;
    facts(attempt, &answer.facts);
    charge(attempt, &answer.facts, target);
}

pub(super) fn failed(attempt: &mut Attempt, error: &GenerationError, target: &ModelTarget) {
    attempt.sent = error.was_sent();
    attempt.error = Some(error.to_string());
    attempt.error_detail = Some(error.detail());
    attempt.error_code = Some(error.code());
    attempt.error_class = error.class();
    if let GenerationError::Failed(failure) = error {
        attempt.usage = failure.usage;
        attempt.may_have_been_billed = failure.may_have_been_billed();
        attempt.should_retry = failure.facts.should_retry;
        facts(attempt, &failure.facts);
        if attempt.may_have_been_billed {
            charge(attempt, &failure.facts, target);
        }
    }
}

fn facts(attempt: &mut Attempt, facts: &CallFacts) {
    attempt.http_status = facts.http_status;
    attempt.request_id.clone_from(&facts.request_id);
    attempt.retry_after_ms = facts.retry_after.map(whole_millis);
    attempt.first_token_ms = facts.first_token.map(whole_millis);
}

/// What the provider states itself counts; what our prices make of its tokens stands beside it.
fn charge(attempt: &mut Attempt, facts: &CallFacts, target: &ModelTarget) {
    let priced = cost(attempt.usage.as_ref(), target.price.as_ref());
    let priced = priced.map_err(|why| match why {
        CostUnknown::NoUsage if facts.counted_nothing => CostUnknown::NothingCounted,
        CostUnknown::NoPrice
        | CostUnknown::NoUsage
        | CostUnknown::NothingCounted
        | CostUnknown::TooLarge
        | CostUnknown::Unrecognised => why,
    });
    attempt.stated_cost_usd = facts.stated_cost;
    (attempt.cost_usd, attempt.priced_cost_usd, attempt.cost_unknown) = match facts.stated_cost {
        Some(stated) => (Some(stated), priced.ok(), None),
        None => (priced.ok(), None, priced.err()),
    };
}
