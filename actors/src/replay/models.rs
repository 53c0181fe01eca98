//! Models, answering from a tape.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use throughline_schemas::{
    EventData, FinishReason, Timestamp, WorkflowFailed,
    event::{
        ResponseGenerated,
        generation::{Attempt, Prompt, Purpose},
    },
};

use super::{
    errors::{FailedAttempt, facts, failed_attempt},
    tape::{Recording, with},
};
use crate::{
    dependency::{HeldBack, Refused},
    model::{
        client::{EARLIER_TURNS, counts},
        prompt::Tag,
    },
    policy::retry::RetryPolicy,
    ports::{
        bus::AttemptLog,
        model::{CallFacts, DeltaSink, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models},
    },
};

/// A recorded attempt, and whether it has been re-enacted.
#[derive(Debug)]
struct Take {
    attempt: Attempt,
    failed_attempt: Option<FailedAttempt>,
    is_over: bool,
}

/// What became of the calls of one generation.
#[derive(Debug, Default)]
pub(super) struct ModelScript {
    takes: Vec<Take>,
    /// The call that is being made.
    under_way: Option<usize>,
    /// The answer, if there was one, and what a summary said.
    answer: Option<ModelAnswer>,
    summary: Option<String>,
    /// Whether tokens were counted.
    counted: bool,
    retry: RetryPolicy,
    /// How often each model has been asked, earlier deliveries included.
    made: BTreeMap<(String, String), u32>,
    made_before: u32,
    /// In a simulation, calls that are not on record end somehow.
    assumes: bool,
    /// How often that was so.
    pub(super) assumed: u32,
}

impl ModelScript {
    pub(super) fn of(data: &EventData, retry: RetryPolicy) -> Self {
        let deliveries = Deliveries::of(data);
        let mut script = Self::from_attempts(deliveries.last, retry, deliveries.unknown);
        for attempt in deliveries.noted.iter().filter(|attempt| counts(attempt)) {
            *script.made(attempt) += 1;
        }
        let EventData::ResponseGenerated(generated) = data else { return script };
        let window = generated.prompt.window.as_ref();
        Self {
            answer: Some(answer(generated)),
            summary: summary(&generated.prompt),
            counted: window.is_some_and(|window| window.prompt_tokens.is_some()),
            ..script
        }
    }

    /// The same for all deliveries together, for a run that decides again: what shared state decided about some providers
    /// is left out, and calls that are not on record end as seems likely.
    pub(super) fn assuming(data: &EventData, retry: RetryPolicy, redecided: &BTreeSet<String>) -> Self {
        let deliveries = Deliveries::of(data);
        let all = [deliveries.noted, deliveries.last].concat();
        let Self { takes, .. } = Self::from_attempts(&all, retry, deliveries.unknown);
        let mut script = Self { assumes: true, takes, made: BTreeMap::new(), ..Self::of(data, retry) };
        script.takes.retain(|take| match take.failed_attempt {
            Some(FailedAttempt::Refused(_) | FailedAttempt::NoRoom(_)) => {
                !redecided.contains(&take.attempt.provider)
            }
            Some(FailedAttempt::DoesNotFit) => false,
            Some(FailedAttempt::Failed(_)) | None => true,
        });
        script
    }

    fn from_attempts(attempts: &[Attempt], retry: RetryPolicy, made_before: u32) -> Self {
        let take = |attempt: &Attempt| Take {
            failed_attempt: failed_attempt(attempt),
            attempt: attempt.clone(),
            is_over: false,
        };
        Self { takes: attempts.iter().map(take).collect(), retry, made_before, ..Self::default() }
    }

    /// How often the model of an attempt has been asked.
    fn made(&mut self, attempt: &Attempt) -> &mut u32 {
        let model = (attempt.provider.clone(), attempt.model.clone());
        self.made.entry(model).or_insert(self.made_before)
    }

    pub(super) fn made_before(&self) -> u32 {
        self.made_before
    }

    /// How a call that is not on record may end: as the last one to that model did, else with the answer on record.
    fn assume(&mut self, request: &ModelRequest) -> Called {
        self.assumed = self.assumed.saturating_add(1);
        let mut made = self.takes.iter().rev();
        let last = made.find(|take| {
            take.attempt.provider == request.provider
                && take.attempt.model == request.model
                && !matches!(
                    take.failed_attempt,
                    Some(FailedAttempt::Refused(_) | FailedAttempt::NoRoom(_) | FailedAttempt::DoesNotFit)
                )
        });
        let answered =
            self.takes.iter().find(|take| take.failed_attempt.is_none() && take.attempt.purpose.is_none());
        let random = Some(u64::MAX / 2);
        if let Some(Take { failed_attempt: Some(FailedAttempt::Failed(failure)), attempt, .. }) = last {
            let took = attempt.duration_ms.duration();
            return Called { result: Err(failure.clone()), took, random };
        }
        let like = last.or(answered);
        match (like, &self.answer) {
            (Some(take), Some(answer)) => {
                let (usage, facts) = (take.attempt.usage, facts(&take.attempt));
                let answer = ModelAnswer { usage, facts, model: request.model.clone(), ..answer.clone() };
                Called { result: Ok(answer), took: take.attempt.duration_ms.duration(), random }
            }
            _ => Called { result: Ok(unknown_answer(request)), took: Duration::ZERO, random },
        }
    }

    /// The next recorded attempt at a model.
    fn next(&self, provider: &str, model: &str) -> Option<usize> {
        self.takes.iter().position(|take| {
            !take.is_over && take.attempt.provider == provider && take.attempt.model == model
        })
    }

    /// An attempt is over. The random bits that lead to the wait that followed it, if one did.
    fn over(&mut self, index: usize) -> Option<u64> {
        let take = self.takes.get_mut(index)?;
        take.is_over = true;
        if take.attempt.purpose == Some(Purpose::Summary) {
            return None;
        }
        let attempt = take.attempt.clone();
        let made = self.made(&attempt);
        *made += u32::from(counts(&attempt));
        let made = *made;
        if let Some(jitter) = attempt.jitter {
            return Some(RetryPolicy::random_with(jitter));
        }
        let wanted = attempt.retry_in_ms?;
        // Half a millisecond more, because the rest of it was cut off.
        Some(self.retry.random_for(made, Duration::from_millis(wanted) + Duration::from_micros(500)))
    }

    /// When the next attempt began.
    pub(super) fn next_at(&mut self) -> Option<Timestamp> {
        let take = self.takes.iter_mut().find(|take| !take.is_over)?;
        // No model is asked before it is over.
        take.is_over = take.failed_attempt == Some(FailedAttempt::DoesNotFit);
        Some(take.attempt.started_at)
    }

    /// How long rate limits held the next call to a model back.
    pub(super) fn enter(&mut self, provider: &str, model: &str) -> (HeldBack, Option<u64>) {
        let Some(index) = self.next(provider, model) else { return (HeldBack::default(), None) };
        let waited = match self.takes[index].attempt.waited_ms {
            // It was held back for less than a millisecond, of which the rest was cut off.
            Some(0) => Duration::from_micros(500),
            waited => Duration::from_millis(waited.unwrap_or_default()),
        };
        if let Some(FailedAttempt::NoRoom(wait)) = self.takes[index].failed_attempt {
            return (HeldBack { waited, no_room: Some(wait) }, self.over(index));
        }
        self.under_way = Some(index);
        (HeldBack { waited, no_room: None }, None)
    }

    /// Whether its provider let the call be made.
    pub(super) fn admit(&mut self) -> (Result<(), Refused>, Option<u64>) {
        let Some(index) = self.under_way else { return (Ok(()), None) };
        match &self.takes[index].failed_attempt {
            Some(FailedAttempt::Refused(refused)) => {
                let refused = refused.clone();
                self.under_way = None;
                (Err(refused), self.over(index))
            }
            Some(FailedAttempt::NoRoom(_) | FailedAttempt::DoesNotFit | FailedAttempt::Failed(_)) | None => {
                (Ok(()), None)
            }
        }
    }

    pub(super) fn counted(&self) -> bool {
        self.counted
    }

    /// The call under way: how long it took, and what came of it.
    fn call(&mut self, request: &ModelRequest) -> Called {
        let index = self.under_way.take().or_else(|| self.next(&request.provider, &request.model));
        let Some(take) = index.and_then(|index| self.takes.get(index)) else {
            if self.assumes {
                return self.assume(request);
            }
            return Called { result: Err(unrecorded(request)), took: Duration::ZERO, random: None };
        };
        let (attempt, took) = (&take.attempt, take.attempt.duration_ms.duration());
        let result = match (&take.failed_attempt, attempt.purpose, &self.answer) {
            (Some(FailedAttempt::Failed(failure)), ..) => Err(failure.clone()),
            (None, Some(Purpose::Summary), _) => Ok(summarised(attempt, self.summary.clone())),
            (None, _, Some(answer)) => {
                Ok(ModelAnswer { usage: attempt.usage, facts: facts(attempt), ..answer.clone() })
            }
            _ => Err(unrecorded(request)),
        };
        let random = index.and_then(|index| self.over(index));
        Called { result, took, random }
    }
}

/// The deliveries that a result of the generation stage came of.
#[derive(Debug, Default)]
pub(super) struct Deliveries<'a> {
    /// How many there were of whose attempts nothing is known.
    unknown: u32,
    /// The attempts of those before the last one.
    noted: &'a [Attempt],
    /// Those of the last one.
    last: &'a [Attempt],
    /// Which it was.
    pub(super) number: u32,
}

impl<'a> Deliveries<'a> {
    pub(super) fn of(data: &'a EventData) -> Self {
        let (attempts, unknown) = match data {
            EventData::ResponseGenerated(generated) => (&generated.attempts, generated.earlier_deliveries),
            EventData::WorkflowFailed(failed) => (&failed.attempt_log, made_before(failed)),
            EventData::UserInputReceived(_)
            | EventData::InputValidated(_)
            | EventData::ContextRetrieved(_)
            | EventData::ExternalDataFetched(_)
            | EventData::InteractionSaved(_) => return Self::default(),
        };
        let number = attempts.last().map_or(1, |last| last.delivery);
        let first = attempts.iter().position(|attempt| attempt.delivery == number).unwrap_or_default();
        let (noted, last) = attempts.split_at(first);
        // Events of earlier versions do not say to which delivery an attempt belongs; those before it are not on record.
        Self { unknown, noted, last, number: number.max(unknown.saturating_add(1)) }
    }

    /// What the delivery before the last one had noted.
    pub(super) fn attempt_log(&self) -> Option<AttemptLog> {
        let delivery = self.number.checked_sub(1).filter(|delivery| *delivery > self.unknown)?;
        Some(AttemptLog { delivery, unknown: self.unknown, attempts: self.noted.to_vec() })
    }
}

/// Of how many earlier deliveries of a generation that failed nothing is known.
fn made_before(failed: &WorkflowFailed) -> u32 {
    if failed.earlier_deliveries > 0 {
        return failed.earlier_deliveries;
    }
    // Events of earlier versions do not say; all attempts with the last model that are not on record were such.
    let Some(last) = failed.attempt_log.last() else { return failed.attempts.saturating_sub(1) };
    let own = failed.attempt_log.iter().filter(|attempt| {
        attempt.purpose.is_none() && attempt.provider == last.provider && attempt.model == last.model
    });
    failed.attempts.saturating_sub(u32::try_from(own.count()).unwrap_or(u32::MAX))
}

struct Called {
    result: Result<ModelAnswer, ModelFailure>,
    took: Duration,
    random: Option<u64>,
}

fn answer(generated: &ResponseGenerated) -> ModelAnswer {
    let response = generated.response.clone();
    ModelAnswer {
        text: response.text,
        reasoning: response.reasoning,
        tool_calls: response.tool_calls,
        model: response.model,
        finish_reason: response.finish_reason,
        finish_reason_raw: response.finish_reason_raw,
        usage: None,
        raw: generated.raw_response.clone(),
        facts: CallFacts::default(),
    }
}

/// A summary is on record where it stands in the prompt: as a JSON string in a block of its own.
fn summary(prompt: &Prompt) -> Option<String> {
    let tag = Tag::of_record(prompt.tag.as_deref());
    let block = prompt.messages.iter().find_map(|message| tag.enclosed(EARLIER_TURNS, &message.content));
    serde_json::from_str(&block?).ok()
}

fn summarised(attempt: &Attempt, text: Option<String>) -> ModelAnswer {
    ModelAnswer {
        text: text.unwrap_or_default(),
        reasoning: None,
        tool_calls: Vec::new(),
        model: attempt.model.clone(),
        finish_reason: FinishReason::Stop,
        finish_reason_raw: None,
        usage: attempt.usage,
        raw: Value::Null,
        facts: facts(attempt),
    }
}

/// What the answer of a workflow that was never answered would have been, or cost, is not known.
fn unknown_answer(request: &ModelRequest) -> ModelAnswer {
    ModelAnswer {
        text: String::new(),
        reasoning: None,
        tool_calls: Vec::new(),
        model: request.model.clone(),
        finish_reason: FinishReason::Other,
        finish_reason_raw: None,
        usage: None,
        raw: Value::Null,
        facts: CallFacts::default(),
    }
}

/// Not permanent: what would be asked next is of interest, too.
fn unrecorded(request: &ModelRequest) -> ModelFailure {
    let text = format!("there is no such call to {} of {} on record", request.model, request.provider);
    ModelFailure { error: ModelError::BadRequest(text), usage: None, facts: CallFacts::default() }
}

#[async_trait]
impl Models for Recording {
    async fn generate(&self, request: &ModelRequest, _: &dyn DeltaSink) -> Result<ModelAnswer, ModelFailure> {
        let called = with(|tape| Some(tape.models.call(request)));
        let Some(Called { result, took, random }) = called else { return Err(unrecorded(request)) };
        tokio::time::sleep(took).await;
        // Nothing comes between here and the decision about the next attempt.
        with(|tape| tape.random = random.unwrap_or(u64::MAX));
        result
    }
}
