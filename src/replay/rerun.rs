//! Running recorded workflows again, several at once, as far as the budget goes.

use std::{sync::Arc, time::Duration};

use throughline_actors::{
    model::{client::ModelTarget, cost},
    ports::{clock::Clock, model::Models, source::Sources},
    replay::{Budgeted, RecordedWorkflow, RerunError, RerunPorts, Rerunner},
    supervision::engine::StartError,
};
use throughline_schemas::{
    Event, EventData, EventType, SessionId, StageName, Timestamp, Usd, WorkflowFailed, WorkflowId,
    event::{ResponseGenerated, generation::Attempt},
};
use tokio::task::JoinSet;

use super::{
    Setup,
    report::{Answer, Row, Side},
};
use crate::system::{SystemClock, SystemEntropy};

/// Any text that has a word.
const WARM_UP: &str = "ready";

/// What a re-run may do besides asking models.
pub struct Means {
    /// Models that are really asked.
    pub models: Arc<dyn Models>,
    /// Sources that are really asked; `None`: they answer as they did.
    pub sources: Option<Arc<dyn Sources>>,
    /// What all calls may cost together; `None`: any amount.
    pub budget: Option<Usd>,
    /// Workflows that run at once.
    pub concurrency: usize,
    /// Where each of them begins.
    pub from: StageName,
}

/// Runs workflows again.
pub struct Reruns {
    rerunner: Arc<Rerunner>,
    budgeted: Option<Arc<Budgeted>>,
    from: StageName,
    concurrency: usize,
    running: JoinSet<Row>,
}

impl Reruns {
    /// Nothing runs yet.
    pub fn new(setup: &Setup, means: Means) -> Result<Self, StartError> {
        let Means { models, sources, budget, concurrency, from } = means;
        let targets: &[ModelTarget] = &setup.settings.generation.client.models;
        let tokenizer = Arc::clone(&setup.tokenizer);
        let budgeted = budget.map(|budget| {
            Arc::new(Budgeted::new(Arc::clone(&models), Arc::clone(&tokenizer), targets, budget))
        });
        let models = budgeted.clone().map_or(models, |budgeted| budgeted as Arc<dyn Models>);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ports = RerunPorts { models, sources, tokenizer, clock, entropy: Arc::new(SystemEntropy) };
        let rerunner = Arc::new(Rerunner::new(&setup.settings, Arc::clone(&setup.template), ports)?);
        Ok(Self { rerunner, budgeted, from, concurrency: concurrency.max(1), running: JoinSet::new() })
    }

    /// Unpacks what counts tokens for each model, which the first calls would otherwise wait for and seem slow.
    pub async fn warm_up(setup: &Setup) {
        let tokenizer = Arc::clone(&setup.tokenizer);
        let models: Vec<String> =
            setup.settings.generation.client.models.iter().map(|model| model.model.clone()).collect();
        let warmed = tokio::task::spawn_blocking(move || {
            for model in models {
                tokenizer.count(&model, WARM_UP);
            }
        });
        if let Err(error) = warmed.await {
            tracing::warn!(%error, "the tokenizers were not made ready; the first latencies are too long");
        }
    }

    /// Whether another workflow may begin at once.
    pub fn has_room(&self) -> bool {
        self.running.len() < self.concurrency
    }

    /// Whether none runs.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Begins with a workflow.
    pub fn begin(&mut self, recorded: RecordedWorkflow) {
        let (rerunner, from) = (Arc::clone(&self.rerunner), self.from);
        self.running.spawn(async move { row(&rerunner, &recorded, from).await });
    }

    /// The next workflow that is done; `None` while none runs. A panic in one is its failure.
    pub async fn next(&mut self) -> Option<Result<Row, tokio::task::JoinError>> {
        self.running.join_next().await
    }

    /// Why calls are not made any more, if they are not.
    pub fn refused(&self) -> Option<String> {
        self.budgeted.as_ref()?.refused()
    }

    /// What was spent, where there is a budget.
    pub fn spent(&self) -> Option<Usd> {
        self.budgeted.as_ref().map(|budgeted| budgeted.spent())
    }
}

async fn row(rerunner: &Rerunner, recorded: &RecordedWorkflow, from: StageName) -> Row {
    let known = Known::of(recorded);
    let made = rerunner.run(recorded, from).await;
    Row {
        workflow: recorded.workflow.clone(),
        session: known.session,
        user_input: known.user_input,
        before: before(recorded),
        after: after(made),
    }
}

/// Who said what.
struct Known {
    session: SessionId,
    user_input: String,
}

impl Known {
    fn of(recorded: &RecordedWorkflow) -> Self {
        let mut events = recorded.links().map(|(stored, _)| &stored.event);
        let Some(first) = events.next() else {
            return Self { session: SessionId::unknown(), user_input: String::new() };
        };
        let request = std::iter::once(first).chain(events).find_map(|event| event.data.request());
        let user_input = request.map(|request| request.user_input.clone()).unwrap_or_default();
        Self { session: first.meta.session_id.clone(), user_input }
    }
}

fn before(recorded: &RecordedWorkflow) -> Side {
    let asked_at = recorded.event(EventType::ExternalDataFetched).map(|stored| stored.event.meta.time);
    if let Some(EventData::ResponseGenerated(generated)) =
        recorded.event(EventType::ResponseGenerated).map(|stored| &stored.event.data)
    {
        let at = recorded.event(EventType::ResponseGenerated).map(|stored| stored.event.meta.time);
        return answered(generated, asked_at.zip(at).map(|(from, to)| to.ms_since(from)));
    }
    match recorded.end().map(|stored| &stored.event.data) {
        Some(EventData::WorkflowFailed(failed)) => failure(failed),
        _ => Side::NotRun { reason: "it had not ended".to_owned() },
    }
}

fn after(made: Result<Vec<Event>, RerunError>) -> Side {
    let made = match made {
        Ok(made) => made,
        Err(error) => return Side::NotRun { reason: error.to_string() },
    };
    match made.last().map(|event| &event.data) {
        Some(EventData::ResponseGenerated(generated)) => answered(generated, None),
        Some(EventData::WorkflowFailed(failed)) => failure(failed),
        _ => Side::NotRun { reason: "it came to no answer".to_owned() },
    }
}

/// Latency is from the first request to the answer: waits between attempts count, queues do not.
fn answered(generated: &ResponseGenerated, fallback_ms: Option<u64>) -> Side {
    let response = generated.response.clone();
    Side::Answered(Answer {
        text: response.text,
        model: response.model,
        provider: response.provider,
        finish_reason: response.finish_reason,
        usage: generated.usage,
        cost_usd: generated.cost_usd,
        cost_is_partial: generated.cost_is_partial,
        attempts: calls(&generated.attempts),
        latency_ms: spent(&generated.attempts).or(fallback_ms).unwrap_or_default(),
    })
}

/// Attempts of which a request was sent: what was prevented (a breaker, a prompt that cannot be made) called no model.
fn calls(attempts: &[Attempt]) -> u32 {
    u32::try_from(attempts.iter().filter(|attempt| attempt.sent).count()).unwrap_or(u32::MAX)
}

/// From the beginning of the first attempt to the end of the last one, in milliseconds.
fn spent(attempts: &[Attempt]) -> Option<u64> {
    let (first, last) = (attempts.first()?, attempts.last()?);
    let between = Duration::from_millis(last.started_at.ms_since(first.started_at));
    u64::try_from((between + last.duration_ms.duration()).as_millis()).ok()
}

fn failure(failed: &WorkflowFailed) -> Side {
    Side::Failed {
        code: failed.code,
        message: failed.message.clone(),
        attempts: calls(&failed.attempt_log),
        cost_usd: cost::total(&failed.attempt_log).known,
    }
}

/// A workflow that was selected and did not get its turn.
pub fn left_out(recorded: &RecordedWorkflow, reason: &str) -> Row {
    let known = Known::of(recorded);
    Row {
        workflow: WorkflowId::clone(&recorded.workflow),
        session: known.session,
        user_input: known.user_input,
        before: before(recorded),
        after: Side::NotRun { reason: reason.to_owned() },
    }
}

/// The present, for reports.
pub fn now() -> Timestamp {
    SystemClock.now()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use throughline_actors::ports::tokenizer::{TokenCount, Tokenizer};

    use super::*;
    use crate::config::{Env, Layers};

    #[derive(Default)]
    struct Noting(Mutex<Vec<String>>);

    impl Tokenizer for Noting {
        fn count(&self, model: &str, text: &str) -> TokenCount {
            assert!(!text.is_empty(), "nothing is unpacked for nothing");
            self.0.lock().unwrap().push(model.to_owned());
            TokenCount { tokens: 1, estimated: false }
        }
    }

    #[tokio::test]
    async fn every_model_s_tokenizer_is_ready_before_anything_is_measured() {
        let env = Env::from([
            ("OPENAI_API_KEY".to_owned(), "k".to_owned()),
            ("ANTHROPIC_API_KEY".to_owned(), "k".to_owned()),
            ("THROUGHLINE_GENERATION__FALLBACK".to_owned(), "claude-haiku-4-5".to_owned()),
        ]);
        let config = Layers { env, ..Layers::default() }.load_text("t.toml", "").unwrap();
        let noting = Arc::new(Noting::default());
        let setup = Setup { tokenizer: noting.clone(), ..Setup::new(&config).unwrap() };
        Reruns::warm_up(&setup).await;
        let mut ready = noting.0.lock().unwrap().clone();
        ready.sort();
        assert_eq!(ready, ["claude-haiku-4-5", "gpt-4o-mini"]);
    }
}
