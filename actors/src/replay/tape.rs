//! What the ports answer while a stage runs again, and what they receive.
//!
//! A tape belongs to one workflow and to the task that works on it: [`Tape::play`] runs a future with it, and the
//! ports ([`Recording`]) look it up there. So one set of stages, with their breakers and limits, serves many workflows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use throughline_schemas::{Event, EventData, EventType, StageName, Timestamp, TraceParent};
use tracing::{instrument::WithSubscriber, subscriber::NoSubscriber};

use super::{
    Link, RecordedWorkflow,
    models::{Deliveries, ModelScript},
    sources::SourceScripts,
    store::StoreScript,
};
use crate::{
    model::prompt::Tag,
    policy::retry::RetryPolicy,
    ports::bus::{AttemptLog, DeadLetter},
    stages::external::source_selection::SourceSpec,
    supervision::settings::EngineSettings,
};

tokio::task_local! {
    static PLAYING: Arc<Tape>;
}

/// All ports, answering from the tape of the task that asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Recording;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Tape(Mutex<Content>);

/// What is on a tape.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) store: StoreScript,
    pub(super) sources: SourceScripts,
    pub(super) models: ModelScript,
    /// The time has not been read since the work began; the first read only measures how long it waited.
    pub(super) is_fresh: bool,
    /// When the result was made.
    pub(super) at: Option<Timestamp>,
    /// The trace that it belongs to.
    pub(super) traceparent: Option<TraceParent>,
    /// What is on the tape is answered at once, however long it took.
    pub(super) takes_no_time: bool,
    /// The next random bits.
    pub(super) random: u64,
    /// The bits of the name that the recorded prompt has for its blocks of data. Who makes a prompt asks for them first.
    pub(super) tag: Option<u64>,
    /// What earlier deliveries did.
    pub(super) attempt_log: Option<AttemptLog>,
    /// What was published.
    pub(super) published: Vec<Event>,
    /// What an earlier workflow has on record, where this one takes it up.
    pub(super) on_record: Option<Bytes>,
    /// Why a call was not made, for lack of money.
    pub(super) refused: Option<String>,
    /// The dead letters.
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// What has to be known of the policies of here and now to read a record. Where the random numbers of its backoffs are not
/// on record, others are found with which these policies come to its waits, as far as they can.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// When models are asked again.
    pub models: RetryPolicy,
    /// By name of the source.
    pub sources: BTreeMap<String, SourceRule>,
}

/// What has to be known of a source.
#[derive(Debug, Clone, Copy)]
pub struct SourceRule {
    /// When it is asked again.
    pub retry: RetryPolicy,
    /// Whether it may be asked for several URLs.
    pub several: bool,
}

impl Rules {
    /// Those of an engine.
    pub fn of(settings: &EngineSettings) -> Self {
        let stage = settings.stages.get(&StageName::Generation);
        let source = |spec: &SourceSpec| {
            let rule = SourceRule { retry: spec.policy.retry, several: spec.max_matches > 1 };
            (spec.name.clone(), rule)
        };
        Self {
            models: stage.map(|stage| stage.retry).unwrap_or_default(),
            sources: settings.sources.iter().map(source).collect(),
        }
    }
}

impl Tape {
    /// What the ports answered when a result came about.
    pub fn of(link: Link<'_>, rules: &Rules) -> Self {
        let event = &link.result.event;
        let sources = match &event.data {
            EventData::ExternalDataFetched(fetched) => SourceScripts::of(&fetched.external, rules),
            // A source that is required failed, or there are none.
            EventData::WorkflowFailed(failed) => SourceScripts::of(&failed.external, rules),
            EventData::UserInputReceived(_)
            | EventData::InputValidated(_)
            | EventData::ContextRetrieved(_)
            | EventData::ResponseGenerated(_)
            | EventData::InteractionSaved(_) => SourceScripts::default(),
        };
        Self(Mutex::new(Content {
            store: StoreScript::of(link),
            sources,
            models: ModelScript::of(&event.data, rules.models),
            attempt_log: Deliveries::of(&event.data).attempt_log(),
            tag: tag_of(&event.data),
            at: Some(event.meta.time),
            traceparent: Some(event.meta.traceparent),
            // What was handed on is what was on record: the other workflow's events are not looked for.
            on_record: event
                .data
                .request()
                .and_then(|request| request.redo.as_ref())
                .map(|_| link.result.message.body.clone()),
            ..Content::default()
        }))
    }

    /// What is known from the record of a workflow that runs again in part: what the database and the sources answered.
    /// Models are not on it.
    pub fn for_rerun(recorded: &RecordedWorkflow, rules: &Rules) -> Self {
        let context = recorded.event(EventType::ContextRetrieved).map(|stored| &stored.event.data);
        let external = recorded.event(EventType::ExternalDataFetched).map(|stored| &stored.event.data);
        Self(Mutex::new(Content {
            store: match context {
                Some(EventData::ContextRetrieved(retrieved)) => {
                    StoreScript::with_context(retrieved.context.clone())
                }
                _ => StoreScript::default(),
            },
            sources: match external {
                Some(EventData::ExternalDataFetched(fetched)) => SourceScripts::of(&fetched.external, rules),
                _ => SourceScripts::default(),
            },
            takes_no_time: true,
            tag: recorded.event(EventType::ResponseGenerated).and_then(|stored| tag_of(&stored.event.data)),
            ..Content::default()
        }))
    }

    /// What models did, for a run in which everything else is decided again; see [`super::Simulation`].
    pub(super) fn for_simulation(result: &Event, rules: &Rules, redecided: &BTreeSet<String>) -> Self {
        let models = ModelScript::assuming(&result.data, rules.models, redecided);
        let tag = tag_of(&result.data);
        Self(Mutex::new(Content { models, tag, random: u64::MAX / 2, ..Content::default() }))
    }

    /// The delivery with which the record begins: what became of those before is not known.
    pub(super) fn first_delivery(&self) -> u32 {
        self.lock().models.made_before().saturating_add(1)
    }

    /// Calls whose end had to be assumed.
    pub(super) fn assumed_calls(&self) -> u32 {
        self.lock().models.assumed
    }

    /// Runs a future whose ports answer from this tape.
    pub async fn play<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        // A replay announces nothing: what it repeats happened long ago.
        PLAYING.scope(Arc::clone(self), future).with_subscriber(NoSubscriber::default()).await
    }

    /// What was published, taken from the tape.
    pub fn published(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().published)
    }

    /// The dead letters, taken from the tape.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        std::mem::take(&mut self.lock().dead_letters)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bits of the name that the blocks of data have in a recorded prompt.
fn tag_of(data: &EventData) -> Option<u64> {
    match data {
        EventData::ResponseGenerated(generated) => Tag::of_record(generated.prompt.tag.as_deref()).bits(),
        EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ExternalDataFetched(_)
        | EventData::InteractionSaved(_)
        | EventData::WorkflowFailed(_) => None,
    }
}

/// Asks the tape that is playing; the default where none is.
pub(super) fn with<T: Default>(ask: impl FnOnce(&mut Content) -> T) -> T {
    PLAYING.try_with(|tape| ask(&mut tape.lock())).unwrap_or_default()
}
