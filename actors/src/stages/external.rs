//! External data: asks the sources that the text calls for, all at once. A source that is down, slow or lying
//! degrades the answer and never fails the workflow.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value};
use throughline_schemas::{
    Event, EventData, Millis, StageName,
    event::{
        ExternalDataFetched,
        context::Context,
        external::{SourceError, SourceResult, SourceStatus},
    },
};
use tokio::time::Instant;

use crate::{
    dependency::{CallError, Dependency, GaveUp, Refused},
    handler::{Next, Run, Step, Stopped},
    ports::source::{FetchCall, FetchError, Sources},
    source_plan::{Asker, Plan, SourceSpec},
    stages::wrong_event,
};

/// See the module's documentation.
pub struct ExternalStep {
    /// How to call.
    pub sources: Arc<dyn Sources>,
    /// What to call, each with its breaker.
    pub specs: Vec<(SourceSpec, Dependency)>,
}

#[async_trait]
impl Step for ExternalStep {
    fn stage(&self) -> StageName {
        StageName::External
    }

    async fn run(&self, event: &Event, run: Run) -> Result<Next, Stopped> {
        let EventData::ContextRetrieved(retrieved) = &event.data else { return Err(wrong_event(event)) };
        let results = join_all(self.specs.iter().map(|(spec, dependency)| {
            let asker = Asker {
                user: &event.meta.user_id,
                session: &event.meta.session_id,
                workflow: &event.meta.workflow_id,
            };
            let plan = spec.plan(&retrieved.request.user_input, asker);
            self.ask(spec, dependency, plan, run)
        }))
        .await;
        let external: BTreeMap<_, _> =
            self.specs.iter().map(|(spec, _)| spec.name.clone()).zip(results).collect();
        let mut context = retrieved.context.clone();
        add_profile_preferences(&mut context, &external);
        let data = ExternalDataFetched { request: retrieved.request.clone(), context, external };
        Ok(Next { data: EventData::ExternalDataFetched(data), attempt: run.made + 1, release: None })
    }
}

impl ExternalStep {
    async fn ask(&self, spec: &SourceSpec, dependency: &Dependency, plan: Plan, run: Run) -> SourceResult {
        let urls = match plan {
            Plan::Skip => return skipped(),
            Plan::Fetch(urls) => urls,
        };
        let started = Instant::now();
        let many = spec.max_matches > 1;
        let answers = join_all(urls.into_iter().map(|url| self.fetch(spec, dependency, url, run))).await;
        let calls = answers.iter().map(|answer| answer.calls).sum();
        let duration_ms = started.elapsed().into();
        let mut data = Vec::new();
        let mut error = None;
        for answer in answers {
            match answer.result {
                Ok(value) => data.push(value),
                Err(problem) => error = error.or(Some(problem)),
            }
        }
        let status = if data.is_empty() { SourceStatus::Failed } else { SourceStatus::Ok };
        let data = if many { (!data.is_empty()).then_some(Value::Array(data)) } else { data.pop() };
        SourceResult { status, data, error, calls, duration_ms }
    }

    async fn fetch(&self, spec: &SourceSpec, dependency: &Dependency, url: String, run: Run) -> Answer {
        let call = FetchCall {
            source: spec.name.clone(),
            url,
            timeout: spec.timeout,
            max_bytes: spec.max_bytes,
            traceparent: run.traceparent,
        };
        // Every delivery starts anew: what counts is how long this workflow waits for this source.
        let mut calls = 0;
        let result = dependency
            .call(0, |_| {
                calls += 1;
                self.sources.fetch(&call)
            })
            .await;
        Answer { result: result.map_err(|gave_up| source_error(&spec.name, &gave_up)), calls }
    }
}

struct Answer {
    result: Result<Value, SourceError>,
    calls: u32,
}

fn skipped() -> SourceResult {
    SourceResult {
        status: SourceStatus::Skipped,
        data: None,
        error: None,
        calls: 0,
        duration_ms: Millis::default(),
    }
}

fn source_error(source: &str, gave_up: &GaveUp<FetchError>) -> SourceError {
    let (code, http_status) = match &gave_up.last {
        CallError::Refused(Refused::BreakerOpen(_)) => ("breaker_open", None),
        CallError::Refused(Refused::Paced(_)) => ("rate_limited", None),
        CallError::Failed(error) => (error.code(), error.http_status()),
    };
    tracing::warn!(source, code, attempts = gave_up.made, "source failed, the workflow goes on without it");
    SourceError { code: code.to_owned(), message: format!("{source}: {}", gave_up.last), http_status }
}

/// Adds the preferences of any answer that has a `preferences` object. What the user told us wins over what another
/// system says.
fn add_profile_preferences(context: &mut Context, external: &BTreeMap<String, SourceResult>) {
    for result in external.values() {
        let Some(Value::Object(found)) = result.data.as_ref().and_then(|data| data.get("preferences")) else {
            continue;
        };
        let found: &Map<String, Value> = found;
        for (name, value) in found {
            if !context.preferences.contains_key(name) {
                context.preferences.insert(name.clone(), value.clone());
            }
        }
    }
}
