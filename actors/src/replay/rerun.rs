//! A workflow run again with something changed: really made from some stage on, up to the answer, and from the record
//! before that. What is made goes nowhere but to the caller.

use std::sync::Arc;

use throughline_schemas::{EncodeError, Event, EventData, EventType, StageName, encode};

use super::{
    Message, RecordedWorkflow,
    replayer::Stages,
    tape::{Recording, Rules, Tape},
};
use crate::{
    dependency::{Collaborators, vitals::Vitals},
    model::prompt::PromptTemplate,
    policy::settle::Outcome,
    ports::{
        clock::{Clock, Entropy},
        model::Models,
        source::Sources,
        tokenizer::Tokenizer,
    },
    supervision::{
        engine::{Ports, StartError},
        settings::EngineSettings,
    },
};

/// Stages that are made to run, in the order of the journey. What is behind them would store something.
pub const STAGES: [StageName; 4] =
    [StageName::Input, StageName::Context, StageName::External, StageName::Generation];

/// The world that a re-run has to do with.
pub struct RerunPorts {
    /// Models; asked for money.
    pub models: Arc<dyn Models>,
    /// Sources; `None`: they answer as they did.
    pub sources: Option<Arc<dyn Sources>>,
    /// Counts tokens.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Runs workflows again. Breakers, paces and rate limits are common to all that it runs.
pub struct Rerunner {
    stages: Stages,
    rules: Rules,
}

/// Why a workflow cannot be run again.
#[derive(Debug, thiserror::Error)]
pub enum RerunError {
    /// What the first stage works on is not on record.
    #[error("it cannot begin at {from}, since no {wanted} is on record{}", in_stead(*begin))]
    NothingToBeginWith {
        /// That stage.
        from: StageName,
        /// What it works on.
        wanted: EventType,
        /// The nearest earlier stage at which it can begin, if there is one.
        begin: Option<StageName>,
    },
    /// A stage that is never run again.
    #[error("a re-run begins at input, context, external or generation, not at {0}")]
    NoSuchBeginning(StageName),
    /// A stage made nothing.
    #[error("{stage} made nothing: {reason}")]
    Nothing {
        /// Which one.
        stage: StageName,
        /// Why.
        reason: String,
    },
    /// Its next call would have cost more than is left.
    #[error("{0}")]
    Budget(String),
    /// What a stage made cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

fn in_stead(begin: Option<StageName>) -> String {
    begin.map_or_else(String::new, |stage| format!("; begin at {stage}"))
}

impl Rerunner {
    /// Stages with these settings and this prompt.
    pub fn new(
        settings: &EngineSettings,
        template: Arc<PromptTemplate>,
        ports: RerunPorts,
    ) -> Result<Self, StartError> {
        let recording = Arc::new(Recording);
        let RerunPorts { models, sources, tokenizer, clock, entropy } = ports;
        let collaborators = Collaborators {
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            announcer: None,
            vitals: Vitals::default(),
            recorded_gates: None,
        };
        let ports = Ports {
            bus: recording.clone(),
            store: recording.clone(),
            sources: sources.unwrap_or_else(|| recording.clone()),
            models,
            tokenizer,
            clock,
            entropy,
            tracer: recording,
            keeper: None,
        };
        let stages = Stages::new(settings, template, &ports, collaborators)?;
        Ok(Self { stages, rules: Rules::of(settings) })
    }

    /// Runs a workflow from one stage on, up to its answer or its failure; what was made, in order. Dropping the future
    /// abandons the call under way, which may be charged for.
    pub async fn run(&self, recorded: &RecordedWorkflow, from: StageName) -> Result<Vec<Event>, RerunError> {
        if !STAGES.contains(&from) {
            return Err(RerunError::NoSuchBeginning(from));
        }
        let Some((cause, _)) = recorded.given_to(from) else {
            let earlier: Vec<_> = STAGES.into_iter().take_while(|stage| *stage != from).collect();
            let begin = earlier.into_iter().rev().find(|stage| recorded.given_to(*stage).is_some());
            return Err(RerunError::NothingToBeginWith { from, wanted: from.consumes(), begin });
        };
        let tape = Arc::new(Tape::for_rerun(recorded, &self.rules));
        let mut cause = cause.clone();
        let mut made = Vec::new();
        for stage in STAGES.into_iter().skip_while(|stage| *stage != from) {
            let event = self.step(&tape, stage, &cause).await?;
            let is_over = matches!(event.data, EventData::WorkflowFailed(_));
            cause = Message {
                subject: cause.subject,
                headers: Vec::new(),
                body: encode(&event)?.into(),
                sequence: cause.sequence,
                stored_at: event.meta.time,
            };
            made.push(event);
            if is_over {
                break;
            }
        }
        Ok(made)
    }

    /// One stage, for as often as it hands its work back.
    async fn step(&self, tape: &Arc<Tape>, stage: StageName, cause: &Message) -> Result<Event, RerunError> {
        let mut delivered = 1;
        loop {
            let outcome = self.stages.handle(stage, tape, &cause.delivery(delivered)).await;
            if let Some(refused) = tape.lock().refused.take() {
                return Err(RerunError::Budget(refused));
            }
            let wanted = stage.publishes();
            let made = tape.published().into_iter().find(|event| {
                event.event_type() == wanted || event.event_type() == EventType::WorkflowFailed
            });
            if let Some(event) = made {
                return Ok(event);
            }
            match outcome {
                Some(Outcome::Later { after, .. }) => tokio::time::sleep(after).await,
                Some(Outcome::Unusable { error, .. }) => {
                    return Err(RerunError::Nothing { stage, reason: error });
                }
                Some(Outcome::Done | Outcome::Died { .. } | Outcome::TakenOver) | None => {
                    let reason = "it said so without a reason".to_owned();
                    return Err(RerunError::Nothing { stage, reason });
                }
            }
            delivered += 1;
        }
    }
}
