//! Generation: renders the prompt, has the model client answer it, and sends live frames meanwhile.

mod live;
mod prompt;
mod record_size;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use serde_json::Value;
use throughline_schemas::{
    Event, EventData, FailureCode, StageName, WorkflowFailed,
    event::{
        ExternalDataFetched, ResponseGenerated,
        external::{SourceResult, SourceStatus},
        generation::{
            Attempt, AttemptError, Complexity, ErrorClass, Prompt, Response, ResponseFormat, Window,
        },
    },
};

use crate::{
    delivery::{
        attempt_log,
        handler::{Next, Run, Step, Stopped},
    },
    model::{
        client::{Generated, GenerationError, GenerationFailed, GenerationRequest, ModelClient, Sampling},
        cost,
    },
    policy::{routing::RouteRequest, settle::Outcome},
    ports::{
        bus::{AttemptLog, Bus},
        model::AnswerFormat,
    },
    stages::wrong_event,
};
use live::Live;
pub use prompt::Prompts;
use prompt::{NoPrompt, Rendered, TEMPLATE_WAIT};

/// See the module's documentation.
pub struct GenerationStep {
    /// Who answers.
    pub client: ModelClient,
    /// Where live frames go.
    pub bus: Arc<dyn Bus>,
    /// What to say.
    pub prompts: Prompts,
    /// Id of the effective configuration.
    pub config_id: String,
}

#[async_trait]
impl Step for GenerationStep {
    fn stage(&self) -> StageName {
        StageName::Generation
    }

    async fn run(&self, event: &Event, run: Run<'_>) -> Result<Next, Stopped> {
        let EventData::ExternalDataFetched(fetched) = &event.data else { return Err(wrong_event(event)) };
        let (bus, stage) = (self.bus.as_ref(), self.stage());
        let earlier = attempt_log::earlier(bus, stage, run.sequence, run.made).await;
        let (request, left_out) = self.request(event, fetched, &earlier, run)?;
        let live = Live::new(self.bus.as_ref(), &event.meta.workflow_id, run.made.saturating_add(1));
        match self.client.generate(&request, &live).await {
            Ok(generated) => {
                live.completed(generated.answer.finish_reason);
                Ok(self.done(fetched, request, left_out, generated))
            }
            Err(failed) => {
                live.failed(&failed.error.to_string(), failed.again_in);
                if failed.again_in.is_some() {
                    let attempt_log = earlier.and(failed.record.attempts.clone());
                    attempt_log::keep(bus, stage, run.sequence, &attempt_log).await;
                }
                Err(stopped(failed, earlier.unknown))
            }
        }
    }
}

impl GenerationStep {
    /// The request, and how many earlier turns it does not contain.
    fn request(
        &self,
        event: &Event,
        fetched: &ExternalDataFetched,
        earlier: &AttemptLog,
        run: Run<'_>,
    ) -> Result<(GenerationRequest, usize), Stopped> {
        let rendered = self.prompts.render(event, fetched);
        let Rendered { messages, left_out, tag } = rendered.map_err(|no_prompt| match no_prompt {
            NoPrompt::Template(reason) => Stopped::Otherwise(Outcome::Later { after: TEMPLATE_WAIT, reason }),
            NoPrompt::Message(error) => {
                let message = format!("no prompt can be made of this message: {error}");
                let failed = failure(FailureCode::PromptFailed, message, 1, earlier.attempts.clone());
                Stopped::Failed(WorkflowFailed { earlier_deliveries: earlier.unknown, ..failed })
            }
        })?;
        record_size::check(&messages, &fetched.request).map_err(|error| {
            let failed = failure(FailureCode::ResultTooLarge, error.to_string(), 1, earlier.attempts.clone());
            Stopped::Failed(WorkflowFailed { earlier_deliveries: earlier.unknown, ..failed })
        })?;
        let answered = |result: &&SourceResult| result.status == SourceStatus::Ok && result.data.is_some();
        let sources = fetched.external.values().filter(answered).count();
        let request = GenerationRequest {
            sources: sources as u64,
            route: requested(fetched),
            made: earlier.unknown,
            earlier: earlier.attempts.clone(),
            delivery: run.made.saturating_add(1),
            tag,
            ..self.client.request(messages, run.traceparent)
        };
        Ok((request, left_out))
    }

    fn done(
        &self,
        fetched: &ExternalDataFetched,
        request: GenerationRequest,
        left_out: usize,
        generated: Generated,
    ) -> Next {
        let Generated { answer, target, sent, record } = generated;
        let total = cost::total(&record.attempts);
        let attempts = u32::try_from(record.attempts.len()).unwrap_or(u32::MAX);
        let GenerationRequest { messages, sampling, made, tag, .. } = request;
        // What was sent is the same as a rule, and then this is its only holder.
        drop(messages);
        let Sampling { temperature_milli, top_p_milli, stop, format, stream, max_tokens: _ } = sampling;
        let prompt = Prompt {
            id: self.prompts.template.id().to_owned(),
            hash: self.prompts.template.hash().to_owned(),
            config: self.config_id.clone(),
            tag: tag.bits().map(|_| tag.to_string()),
            messages: Arc::unwrap_or_clone(sent.messages),
            max_tokens: sent.max_tokens,
            temperature_milli,
            top_p_milli,
            stop,
            format: match format {
                AnswerFormat::Text => None,
                AnswerFormat::Json(schema) => Some(ResponseFormat::Json { schema }),
            },
            stream,
            window: window(sent.window, left_out),
        };
        let mut data = ResponseGenerated {
            request: fetched.request.clone(),
            response: Response {
                text: answer.text,
                model: answer.model,
                provider: target.provider,
                finish_reason: answer.finish_reason,
                finish_reason_raw: answer.finish_reason_raw,
                reasoning: answer.reasoning,
                tool_calls: answer.tool_calls,
            },
            usage: answer.usage.unwrap_or_default(),
            cost_usd: total.known,
            cost_is_partial: total.is_partial,
            degraded: degraded(fetched),
            attempts: record.attempts,
            earlier_deliveries: made,
            route: Some(record.route),
            prompt,
            raw_response: answer.raw,
        };
        record_size::fit(&mut data);
        Next {
            data: EventData::ResponseGenerated(Box::new(data)),
            attempt: made.saturating_add(attempts),
            release: None,
        }
    }
}

/// The sources whose data the answer lacks.
fn degraded(fetched: &ExternalDataFetched) -> Vec<String> {
    let sources = fetched.external.iter();
    sources.filter(|(_, result)| result.is_degraded()).map(|(name, _)| name.clone()).collect()
}

/// What the publisher says about the route, in `metadata.model` and `metadata.complexity`. Whether it counts is for
/// the configuration to say.
fn requested(fetched: &ExternalDataFetched) -> RouteRequest {
    let named = |key| fetched.request.metadata.get(key).and_then(Value::as_str);
    let complexity = match named("complexity") {
        Some("simple") => Some(Complexity::Simple),
        Some("moderate") => Some(Complexity::Moderate),
        Some("complex") => Some(Complexity::Complex),
        Some(_) | None => None,
    };
    RouteRequest { model: named("model").map(str::to_owned), complexity }
}

/// What did not get into the prompt in the first place was left out of it as well.
fn window(window: Option<Window>, left_out: usize) -> Option<Window> {
    let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
    if window.is_none() && left_out == 0 {
        return None;
    }
    let window = window.unwrap_or_default();
    Some(Window { dropped_turns: window.dropped_turns.saturating_add(left_out), ..window })
}

fn stopped(failed: GenerationFailed, earlier_deliveries: u32) -> Stopped {
    let GenerationFailed { error, made, again_in, record } = failed;
    if let Some(after) = again_in {
        return Stopped::Otherwise(Outcome::Later { after, reason: error.to_string() });
    }
    let failed = failure(code_of(&error), error.to_string(), made, record.attempts);
    // The same limit would be used up again.
    let retryable = failed.retryable && error.code() != AttemptError::LimitUsedUp;
    Stopped::Failed(WorkflowFailed { earlier_deliveries, retryable, ..failed })
}

fn code_of(error: &GenerationError) -> FailureCode {
    if *error == GenerationError::NoModel {
        return FailureCode::ModelUnavailable;
    }
    match error.code() {
        AttemptError::Credentials
        | AttemptError::Forbidden
        | AttemptError::BadRequest
        | AttemptError::QuotaExhausted
        | AttemptError::UnknownModel
        | AttemptError::ContextTooLong
        | AttemptError::ContentFiltered => FailureCode::ModelRejected,
        AttemptError::RateLimited | AttemptError::Paced | AttemptError::OwnRateLimit => {
            FailureCode::RateLimited
        }
        // Nothing was sent within the limit on connecting.
        AttemptError::Server
        | AttemptError::Unreachable
        | AttemptError::ConnectTimeout
        | AttemptError::BreakerOpen
        | AttemptError::Unrecognised => FailureCode::ModelUnavailable,
        AttemptError::FirstTokenTimeout | AttemptError::ReadTimeout | AttemptError::TotalTimeout => {
            FailureCode::TimedOut
        }
        AttemptError::CutShort
        | AttemptError::TooLarge
        | AttemptError::BadResponse
        | AttemptError::LimitUsedUp => FailureCode::BadResponse,
    }
}

fn failure(code: FailureCode, message: String, attempts: u32, attempt_log: Vec<Attempt>) -> WorkflowFailed {
    let retryable = match code {
        FailureCode::ModelUnavailable
        | FailureCode::RateLimited
        | FailureCode::TimedOut
        | FailureCode::BadResponse
        | FailureCode::SourceUnavailable
        | FailureCode::StoreUnavailable => true,
        FailureCode::InvalidInput
        | FailureCode::ModelRejected
        | FailureCode::UnreadableEvent
        | FailureCode::Poison
        | FailureCode::SessionBusy
        | FailureCode::NotSessionOwner
        | FailureCode::TooManyOpen
        | FailureCode::Interrupted
        | FailureCode::Merged
        | FailureCode::Conflict
        | FailureCode::Gone
        | FailureCode::Stalled
        | FailureCode::ResultTooLarge
        | FailureCode::PromptFailed
        | FailureCode::Internal
        | FailureCode::Unrecognised => false,
    };
    let may_have_happened = attempt_log
        .iter()
        .any(|attempt| attempt.may_have_been_billed || attempt.error_class == Some(ErrorClass::Unknown));
    WorkflowFailed {
        code,
        stage: StageName::Generation,
        message,
        attempts,
        retryable,
        may_have_happened,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log,
        external: BTreeMap::new(),
    }
}
