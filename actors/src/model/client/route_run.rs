//! One request on its way through its route.

use std::time::Duration;

use throughline_schemas::{
    WaitReason,
    event::generation::{Attempt, Message, Purpose, Route},
};
use tokio::time::Instant;

use super::{
    Generated, GenerationError, GenerationFailed, GenerationRequest, Model, ModelClient, ModelTarget,
    OlderTurns, Record, Sent, StreamEvent, StreamObserver,
    call::Call,
    fit::{Fit, Fitted, TooLong},
    limits::RatePatience,
    record::{counts, failed, held_for, unsent},
    stream_observer::Failure,
};
use crate::{
    dependency::{Refused, whole_millis},
    metrics,
    policy::{breaker::BreakerState, fallback::FallbackOn, limits::NOTICEABLE_WAIT, retry::RetryPolicy},
    ports::{Fault, model::ModelAnswer},
};

/// A model of the route, and how far this request has come with it.
struct Candidate<'a> {
    model: &'a Model,
    /// Attempts made with it, those before this request included.
    made: u32,
    /// What it failed of last.
    last: Option<GenerationError>,
    state: CandidateState,
    /// The prompt as it gets it, once that is known.
    fitted: Option<Fitted>,
}

/// How much of the last attempt the observer has seen.
enum Reported {
    /// There was none, or its end has been reported.
    Nothing,
    /// That it was made, or not even that.
    NoText,
    /// Some of its text.
    Text,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CandidateState {
    /// It may be asked from then on.
    From(Instant),
    /// It is not asked any more.
    Over,
}

impl Candidate<'_> {
    /// Whether a rate limit had no room for it when it was to be asked last.
    fn is_held_back(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.held_back().is_some())
    }

    /// How long until it may be asked.
    fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            CandidateState::From(then) => Some(then.saturating_duration_since(now)),
            CandidateState::Over => None,
        }
    }
}

/// See the module's documentation.
pub(super) struct RouteRun<'a> {
    client: &'a ModelClient,
    request: &'a GenerationRequest,
    observer: &'a dyn StreamObserver,
    route: Route,
    candidates: Vec<Candidate<'a>>,
    /// The one to ask next, whichever others may be asked.
    stay: Option<usize>,
    attempts: Vec<Attempt>,
    /// Calls that were begun.
    calls: u32,
}

impl<'a> RouteRun<'a> {
    pub(super) fn new(
        client: &'a ModelClient,
        request: &'a GenerationRequest,
        observer: &'a dyn StreamObserver,
    ) -> Self {
        let route = client.route(request);
        let ready = CandidateState::From(Instant::now());
        let candidate = |model: &'a Model| {
            let (provider, name) = (&model.target.provider, &model.target.model);
            let of_model = |one: &&Attempt| one.provider == *provider && one.model == *name && counts(one);
            let made = u32::try_from(request.earlier.iter().filter(of_model).count()).unwrap_or(u32::MAX);
            let made = request.made.saturating_add(made);
            Candidate { model, made, last: None, state: ready, fitted: None }
        };
        let candidates =
            route.models.iter().filter_map(|name| client.known.get(name)).map(candidate).collect();
        Self {
            client,
            request,
            observer,
            route,
            candidates,
            stay: None,
            attempts: request.earlier.clone(),
            calls: 0,
        }
    }

    pub(super) async fn run(mut self) -> Result<Generated, GenerationFailed> {
        let begun = Instant::now();
        let mut before: Option<usize> = None;
        let mut reported = Reported::Nothing;
        while let Some((index, wait)) = self.next() {
            let model = self.candidates[index].model;
            let patience = model.provider.policy().patience;
            let held_back = self.candidates[index].is_held_back();
            if held_back && self.may_hold().is_zero() {
                let after = wait.min(self.left());
                return Err(self.give_up(index, Some(after)));
            }
            let too_long = !held_back && wait > patience.longest_wait;
            if too_long || begun.elapsed().saturating_add(wait) > patience.total {
                return Err(self.give_up(index, Some(wait)));
            }
            // A reader learns at once that the text so far is void, not only when there is more.
            self.report(std::mem::replace(&mut reported, Reported::Nothing), before, index, wait);
            // For a rate limit it waits in the limit's queue, where no other call overtakes it.
            if !held_back {
                self.wait(index, wait).await;
            }
            if let Some(before) = before.filter(|before| *before != index) {
                metrics::fell_back(&self.candidates[before].model.target, &model.target);
            }
            before = Some(index);
            let (error, heard) = match self.call(index).await {
                Ok((answer, sent)) => return Ok(self.generated(index, answer, sent)),
                Err(failed) => failed,
            };
            reported = if heard { Reported::Text } else { Reported::NoText };
            self.failed(index, error);
        }
        Err(self.give_up(before.unwrap_or_default(), None))
    }

    /// Tells what became of the last attempt, of which was `reported` so much, and what comes next.
    fn report(&self, reported: Reported, before: Option<usize>, index: usize, again_in: Duration) {
        let candidate = &self.candidates[index];
        let ModelTarget { model, provider, .. } = &candidate.model.target;
        let last = self.attempts.last().filter(|_| before.is_some());
        let failure = last.map(Failure::of);
        // A wait for a rate limit was reported when it began.
        let failed = failure.filter(|_| last.is_some_and(counts));
        match (reported, failed) {
            (Reported::Text, Some(failure)) => {
                let (attempt, reason) = (self.calls, failure.reason);
                self.observer.observe(StreamEvent::Restarted { attempt, reason, model, provider, again_in });
            }
            (Reported::NoText, Some(failure)) => {
                self.observer.observe(StreamEvent::AttemptFailed { failure, model, provider, again_in });
            }
            (Reported::Nothing, _) | (Reported::Text | Reported::NoText, None) => {}
        }
        if before.is_some_and(|before| before != index) {
            self.observer.observe(StreamEvent::FellBack { model, provider });
        }
        if candidate.is_held_back() || again_in < NOTICEABLE_WAIT {
            return;
        }
        // Of the model that is waited for, which need not be the one that failed last.
        let of_model =
            |one: &&Attempt| one.provider == *provider && one.model == *model && one.purpose.is_none();
        let Some(failure) = self.attempts.iter().rev().find(of_model).map(Failure::of) else { return };
        let why = match &candidate.last {
            Some(GenerationError::Refused(Refused::BreakerOpen(..))) => WaitReason::BreakerOpen,
            Some(error) if error.asks_to_wait() => WaitReason::AskedToWait,
            Some(_) | None => WaitReason::Backoff,
        };
        self.observer.observe(StreamEvent::Waiting { why, failure, model, provider, wait: again_in });
    }

    /// Whom to ask next, and after which wait: the first of the route that may be asked now, else the one that may be
    /// asked soonest.
    fn next(&self) -> Option<(usize, Duration)> {
        let now = Instant::now();
        if let Some(index) = self.stay {
            return self.candidates[index].wait(now).map(|wait| (index, wait));
        }
        let waits = self.candidates.iter().enumerate();
        // The first of equals.
        waits.filter_map(|(index, one)| Some((index, one.wait(now)?))).min_by_key(|(_, wait)| *wait)
    }

    async fn wait(&self, index: usize, wait: Duration) {
        let candidate = &self.candidates[index];
        if wait.is_zero() {
            return;
        }
        // Hears of everything from here on, so that a recovery between looking and waiting is not missed.
        let recovery = candidate.model.provider.recovery();
        let for_breaker = matches!(candidate.last, Some(GenerationError::Refused(Refused::BreakerOpen(..))));
        if for_breaker && candidate.model.provider.state() == BreakerState::Closed {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // The probe of another caller succeeded: there is nothing to wait for any more.
            () = recovery, if for_breaker => {}
        }
    }

    /// Asks one model once. An error comes with whether the observer has seen any of the answer.
    async fn call(&mut self, index: usize) -> Result<(ModelAnswer, Sent), (GenerationError, bool)> {
        let model = self.candidates[index].model;
        let fitted = self.fitted(index).await;
        let mut attempt = unsent(&model.target, Purpose::Answer, self.client.collaborators.clock.now());
        let result = match &fitted {
            Ok(Fitted { sent, tokens }) => {
                let (client, sampling, tokens) = (self.client, &self.request.sampling, *tokens);
                let patience = self.patience(index);
                let takes_tool_calls = self.request.takes_tool_calls;
                let call = Call { client, model, sampling, sent, tokens, patience, takes_tool_calls };
                call.make(self.observer, &mut self.calls, self.request.traceparent, &mut attempt).await
            }
            Err(error) => Err((error.clone(), false)),
        };
        attempt.delivery = self.request.delivery;
        let result = result.map_err(|(error, heard)| (self.within_total(error, &attempt), heard));
        if let Err((error, _)) = &result {
            failed(&mut attempt, error, &model.target);
        }
        self.attempts.push(attempt);
        let answer = result?;
        let sent = fitted.map_err(|error| (error, false))?.sent;
        Ok((answer, sent))
    }

    /// How much longer rate limits may hold this delivery.
    fn may_hold(&self) -> Duration {
        let delivery = self.request.delivery;
        let here = self.attempts.iter().position(|attempt| attempt.delivery == delivery);
        let here = here.and_then(|first| self.attempts.get(first..)).unwrap_or_default();
        self.client.settings.rate_hold.saturating_sub(held_for(here, delivery)).min(self.left())
    }

    /// How much longer rate limits may hold this request.
    fn left(&self) -> Duration {
        self.client.settings.rate_total.saturating_sub(held_for(&self.attempts, self.request.delivery))
    }

    /// How long rate limits may hold the next call back: while another model may be asked, or may be sooner, not for
    /// long; once it is clear that there is nothing better to do, as long as this delivery may be held.
    fn patience(&self, index: usize) -> RatePatience {
        let now = Instant::now();
        let others = self.candidates.iter().enumerate().filter(|(other, _)| *other != index);
        let soonest = others.filter_map(|(_, other)| other.wait(now)).min();
        match soonest {
            Some(soonest) if !self.candidates[index].is_held_back() => {
                let patience = self.client.settings.rate_patience.max(soonest);
                RatePatience::Expecting(patience.min(self.may_hold()))
            }
            Some(_) | None => RatePatience::Waiting(self.may_hold()),
        }
    }

    /// What a rate limit without room means once the request has been held back for as long as it may be.
    fn within_total(&self, error: GenerationError, attempt: &Attempt) -> GenerationError {
        let Some(wait) = error.held_back() else { return error };
        let now = Duration::from_millis(attempt.waited_ms.unwrap_or_default());
        if now < self.left() {
            return error;
        }
        GenerationError::HeldTooLong { wait, total: self.client.settings.rate_total }
    }

    /// The prompt as this model gets it; made once.
    async fn fitted(&mut self, index: usize) -> Result<Fitted, GenerationError> {
        let Candidate { model, fitted, .. } = &self.candidates[index];
        if let Some(fitted) = fitted {
            return Ok(fitted.clone());
        }
        let model = *model;
        let fitted = match self.client.fit(model, self.request)? {
            Fit::Whole(fitted) => fitted,
            Fit::TooLong(long) => {
                let summary = self.summary(model, &long).await;
                self.client.shorten(model, &long, summary)
            }
        };
        self.candidates[index].fitted = Some(fitted.clone());
        Ok(fitted)
    }

    async fn summary(&mut self, model: &Model, long: &TooLong<'_>) -> Option<Message> {
        let client = self.client;
        let by_model = match &client.settings.older_turns {
            OlderTurns::Drop => return None,
            OlderTurns::Extract => None,
            OlderTurns::Summarise(name) => client.known.get(name),
        };
        if let Some(summariser) = by_model.filter(|_| long.summary_tokens > 0) {
            let (summary, mut attempt) =
                client.summarise(summariser, model, long, self.request.traceparent).await;
            attempt.delivery = self.request.delivery;
            self.attempts.push(attempt);
            if summary.is_some() {
                return summary;
            }
        }
        client.extract(model, long)
    }

    /// Decides what a failed attempt means for its model and for the others.
    fn failed(&mut self, index: usize, error: GenerationError) {
        let now = Instant::now();
        let may_fall_back = self.client.settings.fallback_on.contains(&FallbackOn::of(error.code()));
        let retry_in = self.retry_in(index, &error);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.retry_in_ms = retry_in.map(whole_millis);
        }
        if !may_fall_back {
            for (_, other) in self.candidates.iter_mut().enumerate().filter(|(other, _)| *other != index) {
                other.state = CandidateState::Over;
            }
        }
        let another_is_ready = self
            .candidates
            .iter()
            .enumerate()
            .any(|(other, candidate)| other != index && candidate.wait(now) == Some(Duration::ZERO));
        let patient = !error.is_refusal() && retry_in <= Some(self.client.settings.fallback_patience);
        self.stay = (retry_in.is_some() && another_is_ready && patient).then_some(index);
        let candidate = &mut self.candidates[index];
        candidate.state = retry_in.map_or(CandidateState::Over, |wait| CandidateState::From(now + wait));
        candidate.last = Some(error);
    }

    /// How long to wait before this model may be asked again, if it may. An attempt that a breaker prevented counts, so
    /// that a provider that stays down ends the loop; one that waits for a rate limit does not: its time is limited.
    fn retry_in(&mut self, index: usize, error: &GenerationError) -> Option<Duration> {
        if let Some(wait) = error.held_back() {
            return Some(wait);
        }
        let candidate = &mut self.candidates[index];
        candidate.made = candidate.made.saturating_add(1);
        let hint = match error.fault() {
            Fault::Permanent => return None,
            Fault::Transient { wait_at_least } => wait_at_least,
            Fault::Unknown => None,
        };
        let random = self.client.collaborators.entropy.next_u64();
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.jitter = Some(RetryPolicy::jitter(random));
        }
        let delay = candidate.model.provider.policy().retry.delay_after(candidate.made, hint, random)?;
        // A refusal knows exactly when to come back; the policy's cap is for the other side's hints.
        Some(if error.is_refusal() { delay.max(hint.unwrap_or_default()) } else { delay })
    }

    fn generated(self, index: usize, answer: ModelAnswer, sent: Sent) -> Generated {
        let target = self.candidates[index].model.target.clone();
        Generated { answer, target, sent, record: Record { route: self.route, attempts: self.attempts } }
    }

    fn give_up(mut self, index: usize, again_in: Option<Duration>) -> GenerationFailed {
        let (error, made) = match self.candidates.get_mut(index) {
            Some(candidate) => (candidate.last.take().unwrap_or(GenerationError::NoModel), candidate.made),
            None => (GenerationError::NoModel, self.request.made + 1),
        };
        let record = Record { route: self.route, attempts: self.attempts };
        GenerationFailed { error, made, again_in, record }
    }
}
