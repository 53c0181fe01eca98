//! A log run again under another configuration: routes, attempts, waits, breakers, rate limits and prices decided again
//! for all workflows together, in the order and at the distances in which they came, without asking anybody.
//!
//! What models did is taken from the record: the *n*-th call of a workflow to a model ends as it did. What is not on
//! record has to be assumed: a call beyond the recorded ones ends as the last one of that workflow to that model did, and
//! a model that a workflow never asked answers what the workflow was answered, with the same tokens, in the same time.
//! Such calls are counted.
//!
//! Breakers, paces and rate limits have state that is common to all workflows of a process. Where a provider's limits
//! are as they were, what they decided is taken from the record; where they are changed, they decide again, as those of
//! one process would.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rust_decimal::Decimal;
use throughline_schemas::{
    Event, EventData, EventType, FailureCode, StageName, Timestamp, Usd, WorkflowId,
    event::generation::{Attempt, AttemptError},
};
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    Message, RecordedWorkflow,
    recorded_workflow::made_by,
    replayer::Stages,
    tape::{Recording, Rules, Tape},
};
use crate::{
    dependency::{Collaborators, HeldBack, RecordedGates, Refused, vitals::Vitals},
    model::{cost, prompt::PromptTemplate},
    policy::settle::Outcome,
    ports::{clock::Clock, tokenizer::Tokenizer},
    supervision::{
        engine::{Ports, StartError},
        settings::EngineSettings,
    },
};

/// Deliveries of one message after which a simulated workflow is given up; the engine would dead-letter it.
const MAX_DELIVERIES: u32 = 100;
/// Results that may wait for their reader.
const RESULTS_AHEAD: usize = 64;

/// One attempt, as far as it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Name of the provider in the configuration.
    pub provider: String,
    /// Model asked for.
    pub model: String,
    /// What it failed of; `None` if it was answered.
    pub error: Option<AttemptError>,
    /// How long rate limits held it back, in milliseconds.
    pub waited_ms: u64,
    /// The wait that was decided on before the model might be asked again, in milliseconds.
    pub retry_in_ms: Option<u64>,
    /// What it cost, if that is known.
    pub cost_usd: Option<Usd>,
}

/// What came of one workflow in the generation stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decisions {
    /// Models of the route, in the order in which they are asked.
    pub route: Vec<String>,
    /// Every attempt, in order.
    pub attempts: Vec<Decided>,
    /// Why there was no answer, if there was none.
    pub failed: Option<FailureCode>,
    /// What all attempts cost, as far as it is known; `None` if nothing is.
    pub cost_usd: Option<Usd>,
}

/// A workflow with what was decided then, and what would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulated {
    /// The workflow.
    pub workflow: WorkflowId,
    /// Then.
    pub recorded: Decisions,
    /// Under the other configuration; `None` if it would not come to an end within the deliveries of one message.
    pub now: Option<Decisions>,
    /// Calls whose end had to be assumed.
    pub assumed_calls: u32,
    /// How long the stage worked on it, from its first request to its result, in milliseconds.
    pub took_ms: u64,
}

impl Simulated {
    /// Whether anything would have been decided otherwise.
    pub fn is_changed(&self) -> bool {
        self.now.as_ref() != Some(&self.recorded)
    }
}

impl Decisions {
    /// Those of a result of the generation stage.
    pub fn of(event: &Event) -> Option<Self> {
        let (attempts, route, failed) = match &event.data {
            EventData::ResponseGenerated(generated) => (&generated.attempts, generated.route.as_ref(), None),
            EventData::WorkflowFailed(failed) if failed.stage == StageName::Generation => {
                (&failed.attempt_log, None, Some(failed.code))
            }
            EventData::WorkflowFailed(_)
            | EventData::UserInputReceived(_)
            | EventData::InputValidated(_)
            | EventData::ContextRetrieved(_)
            | EventData::ExternalDataFetched(_)
            | EventData::InteractionSaved(_) => return None,
        };
        Some(Self {
            route: route.map(|route| route.models.clone()).unwrap_or_default(),
            attempts: attempts.iter().map(Decided::of).collect(),
            failed,
            cost_usd: cost::total(attempts).known,
        })
    }

    /// The known cost in dollars; zero if nothing is known.
    pub fn dollars(&self) -> Decimal {
        self.cost_usd.map(Usd::dollars).unwrap_or_default()
    }
}

impl Decided {
    fn of(attempt: &Attempt) -> Self {
        Self {
            provider: attempt.provider.clone(),
            model: attempt.model.clone(),
            error: attempt.error_code,
            waited_ms: attempt.waited_ms.unwrap_or_default(),
            retry_in_ms: attempt.retry_in_ms,
            cost_usd: attempt.cost_usd,
        }
    }
}

/// A workflow that can be simulated: what its generation stage worked on, and what it made of it.
#[derive(Debug)]
pub struct Recorded {
    workflow: WorkflowId,
    cause: Message,
    result: Event,
    began: Timestamp,
}

impl Recorded {
    /// `None` if the workflow did not come to the generation stage, was ended from outside it, or what it worked on is
    /// not on record.
    pub fn of(recorded_workflow: &RecordedWorkflow) -> Option<Self> {
        let result =
            recorded_workflow.event(EventType::ResponseGenerated).or_else(|| recorded_workflow.end())?;
        // What was ended from outside was not decided here.
        made_by(result).ok()?;
        let attempts = match &result.event.data {
            EventData::ResponseGenerated(generated) => &generated.attempts,
            EventData::WorkflowFailed(failed) if failed.stage == StageName::Generation => &failed.attempt_log,
            EventData::WorkflowFailed(_)
            | EventData::UserInputReceived(_)
            | EventData::InputValidated(_)
            | EventData::ContextRetrieved(_)
            | EventData::ExternalDataFetched(_)
            | EventData::InteractionSaved(_) => return None,
        };
        let (cause, _) = recorded_workflow.given_to(StageName::Generation)?;
        // The first attempt began when its turn in the rate limits had come.
        let began = attempts.first().map_or(cause.stored_at, |first| {
            let held =
                Duration::from_millis(if first.sent { first.waited_ms.unwrap_or_default() } else { 0 });
            Timestamp::from(OffsetDateTime::from(first.started_at) - held)
        });
        Some(Self {
            workflow: recorded_workflow.workflow.clone(),
            cause: cause.clone(),
            result: result.event.clone(),
            began,
        })
    }
}

/// The wall clock of a simulation: it follows the paused clock of its runtime.
struct SimulatedClock {
    origin: OffsetDateTime,
    started: Instant,
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from(self.origin + self.started.elapsed())
    }
}

/// Takes what was decided about most providers from the record.
struct PartialGates {
    redecided: BTreeSet<String>,
}

impl RecordedGates for PartialGates {
    fn admit(&self, stage: StageName, dependency: &str) -> Option<Result<(), Refused>> {
        if stage == StageName::Generation && self.redecided.contains(dependency) {
            return None;
        }
        Recording.admit(stage, dependency)
    }

    fn enter(&self, provider: &str, model: &str) -> Option<HeldBack> {
        let recorded = Recording.enter(provider, model);
        if self.redecided.contains(provider) { None } else { recorded }
    }

    fn counts_tokens(&self, provider: &str, model: &str) -> Option<bool> {
        if self.redecided.contains(provider) { None } else { Recording.counts_tokens(provider, model) }
    }
}

/// What to simulate with.
pub struct Simulation {
    /// The other configuration.
    pub settings: EngineSettings,
    /// The configuration of the record: what chance came to follows from its policies.
    pub recorded_settings: EngineSettings,
    /// The prompt.
    pub template: Arc<PromptTemplate>,
    /// Counts tokens.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// Providers whose breakers, paces and rate limits decide again.
    pub redecided: BTreeSet<String>,
}

impl Simulation {
    /// Runs through all workflows, in the order in which they came; must run on a paused clock. Results come in the order
    /// in which the workflows would have ended. Ends early, without a trace, when `results` is dropped.
    pub async fn run(
        self,
        mut workflows: Vec<Recorded>,
        results: mpsc::Sender<Simulated>,
    ) -> Result<(), StartError> {
        workflows.sort_by_key(|workflow| workflow.began);
        let Some(origin) = workflows.first().map(|first| first.began) else { return Ok(()) };
        let (origin, started) = (OffsetDateTime::from(origin), Instant::now());
        let recording = Arc::new(Recording);
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock { origin, started });
        let collaborators = Collaborators {
            clock: Arc::clone(&clock),
            entropy: recording.clone(),
            announcer: None,
            vitals: Vitals::default(),
            recorded_gates: Some(Arc::new(PartialGates { redecided: self.redecided.clone() })),
        };
        let ports = Ports {
            bus: recording.clone(),
            store: recording.clone(),
            sources: recording.clone(),
            models: recording.clone(),
            tokenizer: self.tokenizer,
            clock,
            entropy: recording.clone(),
            tracer: recording,
            keeper: None,
        };
        let stages = Arc::new(Stages::new(&self.settings, self.template, &ports, collaborators)?);
        let rules = Rules::of(&self.recorded_settings);
        let mut running = JoinSet::new();
        for workflow in workflows {
            let begins = OffsetDateTime::from(workflow.began) - origin;
            tokio::time::sleep_until(started + begins.try_into().unwrap_or(Duration::ZERO)).await;
            while running.try_join_next().is_some() {}
            if results.is_closed() {
                return Ok(());
            }
            let tape = Arc::new(Tape::for_simulation(&workflow.result, &rules, &self.redecided));
            running.spawn(one(Arc::clone(&stages), tape, workflow, results.clone()));
        }
        while running.join_next().await.is_some() {}
        Ok(())
    }
}

async fn one(stages: Arc<Stages>, tape: Arc<Tape>, workflow: Recorded, results: mpsc::Sender<Simulated>) {
    let begun = Instant::now();
    let mut now = None;
    for delivered in tape.first_delivery()..=MAX_DELIVERIES {
        let delivery = workflow.cause.delivery(delivered);
        let outcome = stages.handle(StageName::Generation, &tape, &delivery).await;
        now = tape.published().first().and_then(Decisions::of);
        match outcome {
            Some(Outcome::Later { after, .. }) if now.is_none() => tokio::time::sleep(after).await,
            _ => break,
        }
    }
    let Some(recorded) = Decisions::of(&workflow.result) else { return };
    // A failure has no route on record; it is not to count as another decision.
    if let Some(now) = now.as_mut().filter(|now| now.failed.is_some() && recorded.failed.is_some()) {
        now.route.clone_from(&recorded.route);
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let assumed_calls = tape.assumed_calls();
    let simulated = Simulated { workflow: workflow.workflow, recorded, now, assumed_calls, took_ms };
    // The reader is gone.
    let _ = results.send(simulated).await;
}

/// How many results may be waiting before the simulation waits for its reader.
pub fn results() -> (mpsc::Sender<Simulated>, mpsc::Receiver<Simulated>) {
    mpsc::channel(RESULTS_AHEAD)
}
