//! One call to one model.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use throughline_schemas::{StageName, TraceParent, WaitReason, event::generation::Attempt};
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    GenerationError, Model, ModelClient, ModelTarget, Sampling, Sent, StreamEvent, StreamObserver,
    limits::{RateDenied, RatePatience, RatePermit},
    record::succeeded,
    stream_observer::Forwarder,
};
use crate::{
    dependency::whole_millis,
    metrics,
    model::cost::differs,
    policy::{announced::Need, limits::NOTICEABLE_WAIT, window::prompt_tokens},
    ports::model::{ModelAnswer, ModelRequest},
};

/// What is asked, and of whom.
pub(super) struct Call<'a> {
    pub(super) client: &'a ModelClient,
    pub(super) model: &'a Model,
    pub(super) sampling: &'a Sampling,
    pub(super) sent: &'a Sent,
    /// Tokens of the prompt, if they have been counted.
    pub(super) tokens: Option<u64>,
    /// How long rate limits may hold it back.
    pub(super) patience: RatePatience,
    pub(super) takes_tool_calls: bool,
}

impl Call<'_> {
    /// Makes it, if breaker, pace and rate limits allow. `begun` counts calls that were begun; the attempt gets everything
    /// that is recorded of it, except its error. An error comes with whether the observer has seen any of the answer.
    pub(super) async fn make(
        &self,
        observer: &dyn StreamObserver,
        begun: &mut u32,
        traceparent: TraceParent,
        attempt: &mut Attempt,
    ) -> Result<ModelAnswer, (GenerationError, bool)> {
        let Model { target, provider, .. } = self.model;
        let clock = &self.client.collaborators.clock;
        let mut permit = self.enter(observer, attempt).await.map_err(|error| (error, false))?;
        let pass = provider.admit().map_err(|refused| {
            metrics::refused(StageName::Generation, provider.name());
            (refused.into(), false)
        })?;
        *begun = begun.saturating_add(1);
        observer.observe(StreamEvent::Started {
            attempt: *begun,
            model: &target.model,
            provider: &target.provider,
        });
        attempt.started_at = clock.now();
        let started = Instant::now();
        let request = self.request(traceparent);
        let span = span(&request);
        let forwarder = Forwarder::new(observer, *begun, target);
        permit.begin();
        let result =
            pass.run(self.client.models.generate(&request, &forwarder)).instrument(span.clone()).await;
        let took = started.elapsed();
        attempt.duration_ms = took.into();
        match result {
            Ok(answer) => {
                permit.end(true, answer.usage.as_ref(), answer.facts.allowances.as_deref());
                succeeded(attempt, &answer, target);
                self.compare_costs(attempt);
                observe(&span, target, &answer);
                metrics::model_called(target, None, took, answer.facts.first_token);
                if !forwarder.heard() {
                    if let Some(reasoning) = answer.reasoning.as_deref().filter(|text| !text.is_empty()) {
                        observer.observe(StreamEvent::Reasoning(reasoning));
                    }
                    if !answer.text.is_empty() {
                        observer.observe(StreamEvent::Text(&answer.text));
                    }
                }
                Ok(answer)
            }
            Err(failure) => {
                let first_token = failure.facts.first_token;
                let (usage, allowances) = (failure.usage, failure.facts.allowances.clone());
                let error = GenerationError::from(failure);
                permit.end(error.was_sent(), usage.as_ref(), allowances.as_deref());
                span.record("error.type", error.code().as_str());
                metrics::model_called(target, Some(error.code()), took, first_token);
                Err((error, forwarder.heard()))
            }
        }
    }

    /// Tells, once for each model, that the provider charges something else than our prices say.
    fn compare_costs(&self, attempt: &Attempt) {
        let both = attempt.stated_cost_usd.zip(attempt.priced_cost_usd);
        let Some((stated, priced)) = both.filter(|(stated, priced)| differs(*stated, *priced)) else {
            return;
        };
        if !self.model.warned_of_costs.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                model = self.model.target.name,
                stated = %stated,
                priced = %priced,
                "the provider states another cost than the configured or listed prices make of its tokens; what it \
                 states counts"
            );
        }
    }

    /// Waits for a permit of the rate limits.
    async fn enter(
        &self,
        observer: &dyn StreamObserver,
        attempt: &mut Attempt,
    ) -> Result<RatePermit<'_>, GenerationError> {
        let Model { target, limits, .. } = self.model;
        let provider = &self.model.provider;
        let input = self.tokens.unwrap_or_else(|| {
            if self.client.counts_tokens(self.model) {
                prompt_tokens(self.client.tokenizer.as_ref(), &target.model, &self.sent.messages).tokens
            } else {
                0
            }
        });
        // Providers, too, count the longest answer that is asked for when a request comes.
        let need = Need { input, output: self.sent.max_tokens.into() };
        let recorded = self.client.collaborators.recorded_gates.as_ref();
        let recorded = recorded.and_then(|recorded| recorded.enter(&target.provider, &target.model));
        let entered = match recorded {
            None => {
                let _waiting = metrics::HeldBackNow::new(target);
                let reported = AtomicBool::new(false);
                let report = |expected: Duration| {
                    if expected >= NOTICEABLE_WAIT && !reported.swap(true, Ordering::Relaxed) {
                        let ModelTarget { model, provider, .. } = target;
                        let asked = self.model.provider.paced() >= expected;
                        let why = if asked { WaitReason::AskedToWait } else { WaitReason::RateLimit };
                        observer.observe(StreamEvent::HeldBack { why, model, provider, expected });
                    }
                };
                limits.enter(need, self.patience, || provider.paced(), report).await
            }
            Some(recorded) => limits.enter_as_recorded(need, recorded).await,
        };
        let waited = match &entered {
            Ok(permit) => permit.waited(),
            Err(RateDenied { waited, .. }) => {
                metrics::rate_limited(target);
                *waited
            }
        };
        if !waited.is_zero() {
            attempt.waited_ms = Some(whole_millis(waited));
            metrics::held_back(target, waited);
        }
        entered.map_err(|no_place| no_place.error)
    }

    fn request(&self, traceparent: TraceParent) -> ModelRequest {
        let Sampling { temperature_milli, top_p_milli, stop, format, stream, max_tokens: _ } = self.sampling;
        ModelRequest {
            provider: self.model.target.provider.clone(),
            model: self.model.target.model.clone(),
            messages: Arc::clone(&self.sent.messages),
            max_tokens: self.sent.max_tokens,
            temperature_milli: *temperature_milli,
            top_p_milli: *top_p_milli,
            stop: stop.clone(),
            format: format.clone(),
            stream: *stream,
            traceparent,
            takes_tool_calls: self.takes_tool_calls,
        }
    }
}

fn span(request: &ModelRequest) -> tracing::Span {
    tracing::info_span!(
        "chat",
        otel.name = %format_args!("chat {}", request.model),
        otel.kind = "client",
        gen_ai.operation.name = "chat",
        gen_ai.provider.name = request.provider,
        gen_ai.request.model = request.model,
        gen_ai.request.max_tokens = i64::from(request.max_tokens),
        gen_ai.request.stream = request.stream,
        gen_ai.response.model = tracing::field::Empty,
        gen_ai.response.finish_reasons = tracing::field::Empty,
        gen_ai.usage.input_tokens = tracing::field::Empty,
        gen_ai.usage.output_tokens = tracing::field::Empty,
        error.type = tracing::field::Empty,
    )
}

fn observe(span: &tracing::Span, target: &ModelTarget, answer: &ModelAnswer) {
    span.record("gen_ai.response.model", &answer.model);
    span.record("gen_ai.response.finish_reasons", answer.finish_reason.as_str());
    if let Some(usage) = answer.usage {
        span.record("gen_ai.usage.input_tokens", integer(usage.input_tokens));
        span.record("gen_ai.usage.output_tokens", integer(usage.output_tokens));
        metrics::tokens(&target.name, &usage);
    }
}

/// Span attributes are exported as integers only if they are signed.
fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
