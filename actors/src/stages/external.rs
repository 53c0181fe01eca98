//! External data: asks the sources that the text calls for, all at once. A source that is down, slow or lying
//! degrades the answer and fails no workflow, unless the configuration says that nothing is answered without it.

pub(crate) mod failed_call;
mod required;
pub mod source_selection;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::Value;
use throughline_schemas::{
    Document, Event, EventData, Millis, StageName, WaitReason, WorkflowId,
    event::{
        ExternalDataFetched,
        context::Context,
        external::{FailedCall, SourceError, SourceResult, SourceStatus},
    },
    json,
};
use tokio::time::Instant;

use crate::{
    delivery::handler::{Next, Run, Step, Stopped},
    dependency::{CallError, Dependency, FailedAttempt, Refused, cause::error_chain},
    memory_budget::Room,
    message_values::MessageValues,
    policy::{
        limits::{LARGE_BODY_BYTES, NOTICEABLE_WAIT},
        memory::{answers_weight, weight},
    },
    ports::{
        Classify, Fault,
        bus::Broadcast,
        source::{AnswerRoom, FetchCall, FetchError, Sources},
    },
    stages::{
        external::{
            failed_call::{failed_call, source_error},
            source_selection::{Plan, Planned, SourceSpec},
        },
        wrong_event,
    },
    workflow::live,
};

/// The member of an answer that is used as preferences of the user.
const PREFERENCES: &str = "preferences";
/// Larger ones are not, in bytes of JSON: they would be in every prompt and every later event twice.
const MAX_PREFERENCES_BYTES: usize = 64 * 1024;

/// See the module's documentation.
pub struct ExternalStep {
    /// How to call.
    pub sources: Arc<dyn Sources>,
    /// What to call, each with its breaker.
    pub specs: Vec<(SourceSpec, Dependency)>,
    /// Where live frames go that say what is waited for.
    pub bus: Arc<dyn Broadcast>,
}

#[async_trait]
impl Step for ExternalStep {
    fn stage(&self) -> StageName {
        StageName::External
    }

    async fn make_room(&self, room: &Room, body_bytes: u64) {
        let own = weight(StageName::External, body_bytes);
        if body_bytes > LARGE_BODY_BYTES as u64 {
            let answers = self.specs.iter().map(|(spec, _)| answer_bytes(spec, spec.max_matches)).sum();
            room.take_all(own.saturating_add(answers_weight(answers))).await;
        } else {
            // What the answers need is taken when one of them is large: few are as large as they may be.
            room.take(own).await;
        }
    }

    async fn run(&self, event: &Event, run: Run<'_>) -> Result<Next, Stopped> {
        let EventData::ContextRetrieved(retrieved) = &event.data else { return Err(wrong_event(event)) };
        let message = MessageValues::of(&event.meta, &retrieved.request, &retrieved.context.preferences);
        let plans: Vec<Plan> = self.specs.iter().map(|(spec, _)| spec.plan(&message)).collect();
        let expected =
            self.specs.iter().zip(&plans).map(|((spec, _), plan)| expected_bytes(spec, plan)).sum();
        let asked = join_all(self.specs.iter().zip(plans).map(|((spec, dependency), plan)| {
            let call = SourceCall { run, workflow: &event.meta.workflow_id, expected };
            self.ask(spec, dependency, plan, call)
        }))
        .await;
        let answers = asked.iter().filter_map(|asked| asked.result.data.as_ref());
        run.room.shrink(answers_weight(answers.map(|data| data.as_str().len() as u64).sum()));
        let hopeless = asked.iter().map(|asked| asked.hopeless).collect::<Vec<_>>();
        let results = asked.into_iter().map(|asked| asked.result);
        let external: BTreeMap<_, _> =
            self.specs.iter().map(|(spec, _)| spec.name.clone()).zip(results).collect();
        let specs = self.specs.iter().map(|(spec, _)| spec).zip(hopeless);
        if let Some(failed) = required::missing(specs, &external) {
            return Err(Stopped::Failed(failed));
        }
        let mut context = retrieved.context.clone();
        add_profile_preferences(&mut context, &external);
        let data = ExternalDataFetched { request: retrieved.request.clone(), context, external };
        Ok(Next { data: EventData::ExternalDataFetched(data), attempt: run.made + 1, release: None })
    }
}

impl ExternalStep {
    async fn ask(
        &self,
        spec: &SourceSpec,
        dependency: &Dependency,
        plan: Plan,
        call: SourceCall<'_>,
    ) -> Asked {
        let planned = match plan {
            Plan::Skip => return Asked { result: skipped(), hopeless: false },
            Plan::Fetch(planned) => planned,
        };
        let started = Instant::now();
        let many = spec.max_matches > 1;
        let requests = planned.iter().map(|planned| planned.recorded.clone()).collect();
        let fetches =
            (0..).zip(planned).map(|(index, planned)| self.fetch(spec, dependency, index, planned, call));
        let answers = join_all(fetches).await;
        let calls = answers.iter().map(|answer| answer.calls).sum();
        let duration_ms = started.elapsed().into();
        let mut failed_calls = Vec::new();
        let mut data = Vec::new();
        let mut error = None;
        let hopeless = answers.iter().any(|answer| answer.hopeless);
        for answer in answers {
            failed_calls.extend(answer.failed);
            match answer.result {
                Ok(value) => data.push(value),
                Err(problem) => error = error.or(Some(problem)),
            }
        }
        let status = if data.is_empty() { SourceStatus::Failed } else { SourceStatus::Ok };
        let data = if many { (!data.is_empty()).then(|| Document::array(&data)) } else { data.pop() };
        let result = SourceResult { status, data, error, calls, duration_ms, failed_calls, requests };
        Asked { result, hopeless }
    }

    async fn fetch(
        &self,
        spec: &SourceSpec,
        dependency: &Dependency,
        index: u32,
        planned: Planned,
        call: SourceCall<'_>,
    ) -> Answer {
        let SourceCall { run, workflow, expected } = call;
        let others = expected.saturating_sub(spec.max_bytes as u64);
        let call = FetchCall {
            source: spec.name.clone(),
            url: planned.url,
            method: spec.method,
            headers: planned.headers,
            body: planned.body,
            timeout: spec.timeout,
            max_bytes: spec.max_bytes,
            traceparent: run.traceparent,
            room: AnswerRoom::new(run.room, others),
        };
        // Every delivery starts again: what counts is how long this workflow waits for this source.
        let mut calls = 0;
        let fetch = |_| {
            calls += 1;
            self.sources.fetch(&call)
        };
        let mut failed = Vec::new();
        let report = |failed_attempt: FailedAttempt<'_, FetchError>| {
            let call = failed_call(&spec.name, index, &failed_attempt);
            if let Some(wait) = failed_attempt.again_in.filter(|wait| *wait >= NOTICEABLE_WAIT) {
                let why = waits_for(failed_attempt.error);
                let reason = call.error.message.clone();
                live::waits_for_source(self.bus.as_ref(), workflow, &spec.name, why, reason, wait);
            }
            failed.push(call);
        };
        let result = dependency.call_reporting(0, fetch, report).await;
        let result = result.map_err(|gave_up| {
            let error = source_error(&spec.name, &gave_up.last);
            let (source, code, attempts) = (&spec.name, &error.code, gave_up.made);
            let cause = error_chain(&gave_up.last);
            if spec.required {
                tracing::warn!(source, code, cause, attempts, "a required source failed");
            } else {
                tracing::warn!(
                    source,
                    code,
                    cause,
                    attempts,
                    "source failed, the workflow goes on without it"
                );
            }
            (error, is_hopeless(&gave_up.last))
        });
        let hopeless = matches!(result, Err((_, true)));
        Answer { result: result.map_err(|(error, _)| error), calls, failed, hopeless }
    }
}

/// For which delivery sources are asked.
#[derive(Clone, Copy)]
struct SourceCall<'a> {
    run: Run<'a>,
    workflow: &'a WorkflowId,
    /// Bytes that all answers may have together.
    expected: u64,
}

/// Bytes that a source's answers to so many calls may have.
fn answer_bytes(spec: &SourceSpec, calls: usize) -> u64 {
    (spec.max_bytes as u64).saturating_mul(calls as u64)
}

fn expected_bytes(spec: &SourceSpec, plan: &Plan) -> u64 {
    match plan {
        Plan::Skip => 0,
        Plan::Fetch(planned) => answer_bytes(spec, planned.len()),
    }
}

/// What is waited for after a call that failed.
fn waits_for(error: &CallError<FetchError>) -> WaitReason {
    match error {
        CallError::Refused(Refused::BreakerOpen(..)) => WaitReason::BreakerOpen,
        CallError::Refused(Refused::Paced(_)) => WaitReason::AskedToWait,
        CallError::Failed(error) => match error.fault() {
            Fault::Transient { wait_at_least: Some(_) } => WaitReason::AskedToWait,
            Fault::Transient { wait_at_least: None } | Fault::Permanent | Fault::Unknown => {
                WaitReason::Backoff
            }
        },
    }
}

struct Answer {
    result: Result<Document, SourceError>,
    calls: u32,
    failed: Vec<FailedCall>,
    hopeless: bool,
}

/// What came of asking one source.
struct Asked {
    result: SourceResult,
    /// Whether a call failed of something that asking again later does not change.
    hopeless: bool,
}

fn is_hopeless(error: &CallError<FetchError>) -> bool {
    match error {
        CallError::Refused(_) => false,
        CallError::Failed(error) => match error.fault() {
            Fault::Permanent => true,
            Fault::Transient { .. } | Fault::Unknown => false,
        },
    }
}

fn skipped() -> SourceResult {
    SourceResult {
        status: SourceStatus::Skipped,
        data: None,
        error: None,
        calls: 0,
        duration_ms: Millis::default(),
        failed_calls: Vec::new(),
        requests: Vec::new(),
    }
}

/// Adds the preferences of any answer that has a `preferences` object. What the user set wins over what another
/// system says. Nothing else of the answer becomes values: as those it would take many times its size.
fn add_profile_preferences(context: &mut Context, external: &BTreeMap<String, SourceResult>) {
    for (source, result) in external {
        let Some(written) = result.data.as_ref().and_then(|data| data.member(PREFERENCES)) else { continue };
        if written.len() > MAX_PREFERENCES_BYTES {
            tracing::warn!(
                source,
                bytes = written.len(),
                "the preferences in a source's answer are too large to be used"
            );
            continue;
        }
        let Ok(Value::Object(found)) = json::view(written.as_bytes()) else { continue };
        for (name, value) in found {
            context.preferences.entry(name).or_insert(value);
        }
    }
}
