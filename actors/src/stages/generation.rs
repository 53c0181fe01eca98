//! Generation: renders the prompt, asks the model, records every attempt.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rust_decimal::Decimal;
use throughline_schemas::{
    Event, EventData, FailureCode, Millis, StageName, Usd, WorkflowFailed,
    event::{
        ExternalDataFetched, ResponseGenerated,
        generation::{Attempt, ErrorClass, Prompt, Response},
    },
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    cost::cost,
    dependency::{CallError, Dependency, GaveUp, Refused, WhenRefused},
    handler::{Next, Run, Step, Stopped},
    policy::settle::Outcome,
    ports::{
        Classify, Fault,
        clock::Clock,
        model::{AnswerFormat, ModelAnswer, ModelError, ModelFailure, ModelRequest, Models, Phase, Unheard},
    },
    prompt::PromptTemplate,
    settings::{GenerationSettings, ModelTarget},
    signals,
    stages::wrong_event,
};

/// See the module's documentation.
pub struct GenerationStep {
    /// How to call.
    pub models: Arc<dyn Models>,
    /// Providers of the route's models, in the order of `settings.route`; models of one provider share its breaker.
    pub providers: Vec<Dependency>,
    /// How to ask.
    pub settings: GenerationSettings,
    /// What to say.
    pub template: Arc<PromptTemplate>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Step for GenerationStep {
    fn stage(&self) -> StageName {
        StageName::Generation
    }

    async fn run(&self, event: &Event, run: Run) -> Result<Next, Stopped> {
        let EventData::ExternalDataFetched(fetched) = &event.data else { return Err(wrong_event(event)) };
        let prompt = self.prompt(fetched).map_err(Stopped::Failed)?;
        let log = AttemptLog::default();
        let mut gave_up = Vec::new();
        for (target, provider) in self.settings.route.iter().zip(&self.providers) {
            // Only the last one is worth waiting for: until then there is another that may be asked now.
            let is_last = gave_up.len() + 1 == self.settings.route.len();
            let refused = if is_last { WhenRefused::Wait } else { WhenRefused::GiveUp };
            match self.ask(target, (provider, refused), &prompt, run, &log).await {
                Ok(answer) => return Ok(done(fetched, target, prompt, answer, log, run)),
                Err(gone) => gave_up.push(gone),
            }
        }
        Err(stopped(gave_up, log))
    }
}

impl GenerationStep {
    fn prompt(&self, fetched: &ExternalDataFetched) -> Result<Prompt, WorkflowFailed> {
        let messages = self.template.render(fetched, self.settings.max_history_chars).map_err(|error| {
            failure(FailureCode::Internal, format!("the prompt could not be made: {error}"), 1, Vec::new())
        })?;
        Ok(Prompt {
            id: self.template.id().to_owned(),
            hash: self.template.hash().to_owned(),
            config: self.settings.config_id.clone(),
            messages,
            max_tokens: self.settings.max_tokens,
            temperature_milli: self.settings.temperature_milli,
        })
    }

    async fn ask(
        &self,
        target: &ModelTarget,
        (provider, refused): (&Dependency, WhenRefused),
        prompt: &Prompt,
        run: Run,
        log: &AttemptLog,
    ) -> Result<ModelAnswer, GaveUp<ModelFailure>> {
        let request = ModelRequest {
            provider: target.provider.clone(),
            model: target.model.clone(),
            messages: prompt.messages.clone(),
            max_tokens: prompt.max_tokens,
            temperature_milli: Some(prompt.temperature_milli),
            top_p_milli: None,
            stop: Vec::new(),
            format: AnswerFormat::Text,
            stream: false,
            traceparent: run.traceparent,
        };
        let span = tracing::info_span!(
            "chat",
            otel.name = %format_args!("chat {}", target.model),
            otel.kind = "client",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = target.provider,
            gen_ai.request.model = target.model,
            gen_ai.request.max_tokens = i64::from(prompt.max_tokens),
            gen_ai.response.model = tracing::field::Empty,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
            error.type = tracing::field::Empty,
        );
        let result = provider
            .call_or(refused, run.made, |_| {
                let started_at = self.clock.now();
                let started = Instant::now();
                let call = self.models.generate(&request, &Unheard);
                async move {
                    let result = call.await;
                    let mut attempt = Attempt {
                        started_at,
                        duration_ms: started.elapsed().into(),
                        ..unsent(target, started_at)
                    };
                    describe(&mut attempt, &result, target);
                    log.push(attempt);
                    result
                }
            })
            .instrument(span.clone())
            .await;
        match &result {
            Ok(answer) => {
                span.record("gen_ai.response.model", &answer.model);
                if let Some(usage) = answer.usage {
                    span.record("gen_ai.usage.input_tokens", integer(usage.input_tokens));
                    span.record("gen_ai.usage.output_tokens", integer(usage.output_tokens));
                    signals::tokens(&target.name, &usage);
                }
            }
            Err(gave_up) => {
                span.record("error.type", code_of(gave_up).as_str());
                if let CallError::Refused(refused) = &gave_up.last {
                    let prevented = unsent(target, self.clock.now());
                    log.push(Attempt { error: Some(refused.to_string()), ..prevented });
                }
            }
        }
        result
    }
}

fn done(
    fetched: &ExternalDataFetched,
    target: &ModelTarget,
    prompt: Prompt,
    answer: ModelAnswer,
    log: AttemptLog,
    run: Run,
) -> Next {
    let attempts = log.into_inner();
    let cost_usd = total_cost(&attempts);
    let attempt = run.made.saturating_add(u32::try_from(attempts.len()).unwrap_or(u32::MAX));
    let data = ResponseGenerated {
        request: fetched.request.clone(),
        response: Response {
            text: answer.text,
            model: answer.model,
            provider: target.provider.clone(),
            finish_reason: answer.finish_reason,
        },
        usage: answer.usage.unwrap_or_default(),
        cost_usd,
        attempts,
        prompt,
        raw_response: answer.raw,
    };
    Next { data: EventData::ResponseGenerated(Box::new(data)), attempt, release: None }
}

fn stopped(mut all: Vec<GaveUp<ModelFailure>>, log: AttemptLog) -> Stopped {
    let log = log.into_inner();
    // As long as one of them may be asked again, the workflow has not failed.
    let soonest =
        all.iter().filter_map(|gave_up| Some((gave_up.wait?, &gave_up.last))).min_by_key(|(wait, _)| *wait);
    if let Some((after, reason)) = soonest {
        return Stopped::Otherwise(Outcome::Later { after, reason: reason.to_string() });
    }
    let Some(gave_up) = all.pop() else {
        let message = "no model is configured; set generation.model and a provider".to_owned();
        return Stopped::Failed(failure(FailureCode::ModelUnavailable, message, 1, log));
    };
    let code = code_of(&gave_up);
    Stopped::Failed(failure(code, gave_up.last.to_string(), gave_up.made, log))
}

/// Span attributes are exported as integers only if they are signed.
fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Attempts of one run, pushed by the call under way.
#[derive(Default)]
struct AttemptLog(Mutex<Vec<Attempt>>);

impl AttemptLog {
    fn push(&self, attempt: Attempt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }

    fn into_inner(self) -> Vec<Attempt> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unsent(target: &ModelTarget, started_at: throughline_schemas::Timestamp) -> Attempt {
    Attempt {
        provider: target.provider.clone(),
        model: target.model.clone(),
        started_at,
        duration_ms: Millis::default(),
        sent: false,
        http_status: None,
        request_id: None,
        retry_after_ms: None,
        usage: None,
        cost_usd: None,
        error_class: None,
        error: None,
    }
}

fn describe(attempt: &mut Attempt, result: &Result<ModelAnswer, ModelFailure>, target: &ModelTarget) {
    attempt.sent = match result {
        Ok(_) => true,
        Err(failed) => {
            !matches!(failed.error, ModelError::Unreachable(_) | ModelError::TimedOut(Phase::Connect))
        }
    };
    let facts = match result {
        Ok(answer) => {
            attempt.usage = answer.usage;
            attempt.cost_usd = answer.usage.and_then(|usage| cost(&usage, target.price.as_ref()));
            &answer.facts
        }
        Err(failed) => {
            attempt.error = Some(failed.to_string());
            attempt.error_class = Some(match failed.fault() {
                Fault::Permanent => ErrorClass::Permanent,
                Fault::Transient { .. } => ErrorClass::Transient,
                Fault::Unknown => ErrorClass::Unknown,
            });
            &failed.facts
        }
    };
    attempt.http_status = facts.http_status;
    attempt.request_id.clone_from(&facts.request_id);
    attempt.retry_after_ms =
        facts.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
}

/// Known costs, added; unknown if no attempt's cost is known.
fn total_cost(attempts: &[Attempt]) -> Option<Usd> {
    attempts
        .iter()
        .filter_map(|attempt| attempt.cost_usd)
        .map(Usd::dollars)
        .reduce(Decimal::saturating_add)
        .map(Usd::new)
}

fn code_of(gave_up: &GaveUp<ModelFailure>) -> FailureCode {
    match &gave_up.last {
        CallError::Refused(Refused::BreakerOpen(_)) => FailureCode::ModelUnavailable,
        CallError::Refused(Refused::Paced(_)) => FailureCode::RateLimited,
        CallError::Failed(failed) => match &failed.error {
            ModelError::Credentials
            | ModelError::BadRequest(_)
            | ModelError::QuotaExhausted(_)
            | ModelError::UnknownModel(_)
            | ModelError::ContextTooLong(_)
            | ModelError::ContentFiltered(_) => FailureCode::ModelRejected,
            ModelError::RateLimited => FailureCode::RateLimited,
            // Nothing was sent within the limit on connecting.
            ModelError::Server(_) | ModelError::Unreachable(_) | ModelError::TimedOut(Phase::Connect) => {
                FailureCode::ModelUnavailable
            }
            ModelError::TimedOut(Phase::FirstToken | Phase::Read | Phase::Total) => FailureCode::TimedOut,
            ModelError::CutShort(_) | ModelError::TooLarge(_) | ModelError::BadResponse(_) => {
                FailureCode::BadResponse
            }
        },
    }
}

fn failure(code: FailureCode, message: String, attempts: u32, attempt_log: Vec<Attempt>) -> WorkflowFailed {
    let retryable = match code {
        FailureCode::ModelUnavailable
        | FailureCode::RateLimited
        | FailureCode::TimedOut
        | FailureCode::BadResponse
        | FailureCode::StoreUnavailable => true,
        FailureCode::InvalidInput
        | FailureCode::ModelRejected
        | FailureCode::UnreadableEvent
        | FailureCode::Poison
        | FailureCode::SessionBusy
        | FailureCode::Interrupted
        | FailureCode::Merged
        | FailureCode::Stalled
        | FailureCode::Internal
        | FailureCode::Unrecognised => false,
    };
    let may_have_happened =
        attempt_log.iter().any(|attempt| attempt.error_class == Some(ErrorClass::Unknown));
    WorkflowFailed {
        code,
        stage: StageName::Generation,
        message,
        attempts,
        retryable,
        may_have_happened,
        superseded_by: None,
        attempt_log,
    }
}
