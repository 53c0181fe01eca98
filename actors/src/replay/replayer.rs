//! Makes recorded results again, each from its recorded cause.

use std::{collections::BTreeMap, sync::Arc};

use throughline_schemas::{Event, EventData, EventType, StageName};

use super::{
    Difference, Link, NotReplayed, RecordedWorkflow,
    compare::{CompareError, difference},
    models::Deliveries,
    tape::{Recording, Rules, Tape},
};
use crate::{
    delivery::stage::Stage,
    dependency::{Collaborators, vitals::Vitals},
    memory_budget::Budget,
    model::prompt::PromptTemplate,
    policy::settle::Outcome,
    ports::{bus::Delivery, tokenizer::Tokenizer},
    supervision::{
        engine::{Builder, Ports, StartError},
        settings::EngineSettings,
    },
    workflow::{interruptions::Interruptions, users::Users},
};

/// What became of one recorded result.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is made again as it was.
    Identical,
    /// It is made again, and differs.
    Differs(Difference),
    /// Something else is made, or nothing.
    Instead(String),
    /// It is taken as it is.
    NotReplayed(NotReplayed),
}

/// One recorded result and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Replayed {
    /// Its type.
    pub event_type: EventType,
    /// Its sequence in the event stream.
    pub sequence: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// All five stages, none of them an actor: each handles one message at a time.
pub(super) struct Stages(BTreeMap<StageName, Arc<dyn Stage>>);

impl Stages {
    /// Makes all of them, whichever the settings name.
    pub(super) fn new(
        settings: &EngineSettings,
        template: Arc<PromptTemplate>,
        ports: &Ports,
        collaborators: Collaborators,
    ) -> Result<Self, StartError> {
        let interruptions = Interruptions::default();
        // A replay handles one message at a time.
        let memory = Budget::unbounded();
        let users = Users::new(settings.users.clone());
        let builder = Builder { ports, settings, collaborators, template, interruptions, memory, users };
        let stage = |name: &StageName| {
            let settings = settings.stages.get(name).copied().unwrap_or_default();
            Ok((*name, builder.build(*name, &settings)?))
        };
        Ok(Self(StageName::ALL.iter().map(stage).collect::<Result<_, _>>()?))
    }

    /// Has a stage handle a message, its ports answering from a tape.
    pub(super) async fn handle(
        &self,
        name: StageName,
        tape: &Arc<Tape>,
        delivery: &Delivery,
    ) -> Option<Outcome> {
        let stage = self.0.get(&name)?;
        tape.play(stage.handle(std::slice::from_ref(delivery))).await.pop()
    }
}

/// The stages of this version, ready to run again on what is on record. Runs on a paused clock: without one,
/// recorded waits are waited for.
pub struct Replayer {
    stages: Stages,
    rules: Rules,
}

impl Replayer {
    /// Stages with these settings and this prompt.
    pub fn new(
        settings: &EngineSettings,
        template: Arc<PromptTemplate>,
        tokenizer: Arc<dyn Tokenizer>,
    ) -> Result<Self, StartError> {
        let recording = Arc::new(Recording);
        let collaborators = Collaborators {
            clock: recording.clone(),
            entropy: recording.clone(),
            announcer: None,
            vitals: Vitals::default(),
            recorded_gates: Some(recording.clone()),
        };
        let ports = Ports {
            bus: recording.clone(),
            store: recording.clone(),
            sources: recording.clone(),
            models: recording.clone(),
            tokenizer,
            clock: recording.clone(),
            entropy: recording.clone(),
            tracer: recording,
            keeper: None,
        };
        let stages = Stages::new(settings, template, &ports, collaborators)?;
        Ok(Self { stages, rules: Rules::of(settings) })
    }

    /// Makes every result of a workflow again, each from its recorded cause.
    pub async fn verify(&self, recorded: &RecordedWorkflow) -> Result<Vec<Replayed>, CompareError> {
        let mut all = Vec::new();
        for (result, link) in recorded.links() {
            let verdict = match link {
                Ok(link) => self.replay(link).await?,
                Err(not_replayed) => Verdict::NotReplayed(not_replayed),
            };
            let event_type = result.event.event_type();
            all.push(Replayed { event_type, sequence: result.message.sequence, verdict });
        }
        Ok(all)
    }

    /// Makes one result again.
    pub async fn replay(&self, link: Link<'_>) -> Result<Verdict, CompareError> {
        let tape = Arc::new(Tape::of(link, &self.rules));
        let delivery = link.cause.delivery(delivered(&link.result.event));
        let outcome = self.stages.handle(link.stage, &tape, &delivery).await;
        let wanted = &link.result.event;
        let published = tape.published();
        let same_type = |event: &&Event| event.event_type() == wanted.event_type();
        if let Some(now) = published.iter().find(same_type) {
            let found = difference(&link.result.message.body, now)?;
            return Ok(found.map_or(Verdict::Identical, Verdict::Differs));
        }
        Ok(Verdict::Instead(match (published.first(), outcome) {
            (Some(Event { data: EventData::WorkflowFailed(failed), .. }), _) => {
                format!("workflow_failed ({}): {}", failed.code, failed.message)
            }
            (Some(event), _) => event.event_type().to_string(),
            (None, Some(Outcome::Later { after, reason })) => {
                format!("nothing; the work is handed back for {after:?}: {reason}")
            }
            (None, Some(Outcome::Unusable { code, error })) => format!("a dead letter ({code}): {error}"),
            (None, Some(Outcome::Done | Outcome::Died { .. } | Outcome::TakenOver) | None) => {
                "nothing".to_owned()
            }
        }))
    }
}

/// Which delivery of its cause a result came of.
fn delivered(result: &Event) -> u32 {
    match &result.data {
        EventData::ResponseGenerated(_) | EventData::WorkflowFailed(_) => Deliveries::of(&result.data).number,
        EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ExternalDataFetched(_)
        | EventData::InteractionSaved(_) => result.meta.attempt,
    }
}
