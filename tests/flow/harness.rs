//! A world in memory, and worker processes in it.
//!
//! The [`Rig`] is what outlives a process: the bus, the database, the sources and the models. A [`Worker`] is one
//! process; what it does to the world passes a [`Gate`], where a test can make it fail, panic or die.

pub mod defaults;
pub mod gate;
pub mod meters;
pub mod record;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use throughline_actors::{
    delivery::stage::Drained,
    model::prompt::PromptTemplate,
    ports::{
        archive::Archive,
        clock::{Clock, Entropy},
        log::Keeper,
        memory::{
            bus::MemoryBus,
            model::{ScriptedModels, answer},
            script::Reply,
            source::ScriptedSources,
            store::{MemoryStore, TurnState},
        },
        model::ModelRequest,
        tokenizer::FourBytes,
        trace::Tracer,
    },
    supervision::{
        engine::{Engine, Ports, StartError},
        settings::EngineSettings,
    },
};
use throughline_schemas::{
    Event, EventData, EventType, Namespace, SessionId, StageName, Timestamp, TraceParent, UserId,
    WorkflowFailed, WorkflowId, decode,
    event::{ExternalDataFetched, InteractionSaved, ResponseGenerated},
};
use tokio::time::Instant;

pub use defaults::{ACK_WAIT, PROVIDER};
use gate::GatedEntropy;
pub use gate::{Act, Gate, Op};
pub use meters::Meters;

/// A test waits no longer than this (of the paused clock) for anything.
const PATIENCE: Duration = Duration::from_hours(2);
/// The wall clock at the start, as [`MemoryBus`] has it.
const EPOCH_UNIX_MS: i64 = 1_750_000_000_000;

pub struct Rig {
    pub bus: MemoryBus,
    pub store: Arc<MemoryStore>,
    pub sources: Arc<ScriptedSources>,
    pub models: Arc<ScriptedModels>,
    pub archive: Option<Arc<dyn Archive>>,
    pub settings: EngineSettings,
    pub meters: Meters,
    local: Arc<Local>,
}

pub struct Worker {
    pub engine: Engine,
    pub gate: Gate,
}

impl Rig {
    /// A world without a worker: sources and model answer at once, and everything is as configured by default.
    pub fn new() -> Self {
        Self::seeded(1)
    }

    pub fn seeded(seed: u64) -> Self {
        let settings = defaults::settings();
        let sources = Arc::new(ScriptedSources::default());
        sources.always("user_profile", Ok(json!({"name": "Ada", "preferences": {"tone": "brief"}})));
        sources.always("order_history", Ok(json!({"orders": [{"id": "W-7", "status": "shipped"}]})));
        sources.always("product_info", Ok(json!({"name": "Headphones", "stock": 3})));
        let models = Arc::new(ScriptedModels::default());
        models.otherwise(PROVIDER, |request| Reply::Now(Ok(answer(&reply_to(request)))));
        let namespace = Namespace::new("throughline").unwrap();
        let local = Local { started: Instant::now(), random: AtomicU64::new(seed), spans: AtomicU64::new(1) };
        Self {
            bus: MemoryBus::with_ack_wait(namespace, settings.ack_wait),
            store: Arc::new(MemoryStore::new()),
            sources,
            models,
            archive: None,
            settings,
            meters: Meters::install(),
            local: Arc::new(local),
        }
    }

    /// A world with one worker.
    pub async fn running() -> (Self, Worker) {
        let rig = Self::new();
        let worker = rig.worker().await;
        (rig, worker)
    }

    pub async fn worker(&self) -> Worker {
        self.try_worker(self.gate()).await.expect("the engine should start")
    }

    /// A worker whose machine has another idea of the time than the server and the other workers.
    pub async fn worker_with_clock(&self) -> (Worker, Arc<WrongClock>) {
        let clock = Arc::new(WrongClock { right: Arc::clone(&self.local), ahead_ms: AtomicI64::new(0) });
        let worker = self.start(self.gate(), Arc::clone(&clock) as _).await;
        (worker.expect("the engine should start"), clock)
    }

    /// For a worker that misbehaves from its first breath.
    pub fn gate(&self) -> Gate {
        let (store, sources) = (Arc::clone(&self.store), Arc::clone(&self.sources));
        Gate::new(self.bus.clone(), store, sources, Arc::clone(&self.models))
    }

    pub async fn try_worker(&self, gate: Gate) -> Result<Worker, StartError> {
        self.start(gate, Arc::clone(&self.local) as _).await
    }

    /// A worker that says something else.
    pub async fn worker_with_template(&self, template: PromptTemplate) -> Worker {
        let started = self.start_with(self.gate(), Arc::clone(&self.local) as _, template).await;
        started.expect("the engine should start")
    }

    async fn start(&self, gate: Gate, clock: Arc<dyn Clock>) -> Result<Worker, StartError> {
        self.start_with(gate, clock, defaults::template()).await
    }

    async fn start_with(
        &self,
        gate: Gate,
        clock: Arc<dyn Clock>,
        template: PromptTemplate,
    ) -> Result<Worker, StartError> {
        let ports = Ports {
            bus: Arc::new(gate.clone()),
            store: Arc::new(gate.clone()),
            sources: Arc::new(gate.clone()),
            models: Arc::new(gate.clone()),
            tokenizer: Arc::new(FourBytes),
            clock,
            entropy: Arc::new(GatedEntropy { inner: Arc::clone(&self.local) as _, gate: gate.clone() }),
            tracer: Arc::clone(&self.local) as _,
            keeper: Some(Keeper { log: Arc::new(gate.clone()), archive: self.archive.clone() }),
        };
        let engine = Engine::start(ports, self.settings.clone(), template).await?;
        Ok(Worker { engine, gate })
    }

    /// Adds a model of another provider at the end of the route.
    pub fn fall_back_to(&mut self, name: &str, provider: &str) {
        let client = &mut self.settings.generation.client;
        *client = client.clone().falling_back_to(defaults::target(name, provider));
    }

    /// Publishes a bare input under a workflow id.
    pub fn publish(&self, workflow: &str, session: &str, text: &str) -> WorkflowId {
        self.bus.publish_input("ada", session, workflow, text);
        id(workflow)
    }

    /// Publishes anything on the bare input subject.
    pub fn publish_raw(&self, headers: &[(&str, &str)], body: &str) -> u64 {
        self.bus.publish_raw(&self.bus.namespace().bare_input(), headers, body.to_owned())
    }

    /// The event that ends a workflow.
    pub async fn ended(&self, workflow: &WorkflowId) -> Event {
        // The database knows first, and asking it is cheaper than reading all events after each change.
        let ended = self.bus.wait_until(|bus| {
            let over = matches!(self.store.turn(workflow), Some(TurnState::Saved | TurnState::Failed));
            if over {
                events(bus, workflow).into_iter().find(|event| event.event_type().is_end())
            } else {
                None
            }
        });
        match tokio::time::timeout(PATIENCE, ended).await {
            Ok(event) => event,
            Err(_) => panic!("{workflow} did not end; it has {:?}", self.types(workflow)),
        }
    }

    /// The end of a workflow that must be saved.
    pub async fn saved(&self, workflow: &WorkflowId) -> InteractionSaved {
        match self.ended(workflow).await.data {
            EventData::InteractionSaved(saved) => saved,
            other => panic!("{workflow} should be saved, but: {other:#?}"),
        }
    }

    /// The end of a workflow that must fail.
    pub async fn failed(&self, workflow: &WorkflowId) -> WorkflowFailed {
        match self.ended(workflow).await.data {
            EventData::WorkflowFailed(failed) => failed,
            other => panic!("{workflow} should fail, but: {other:#?}"),
        }
    }

    /// All events of a workflow that stages published, in the order of the log.
    pub fn events(&self, workflow: &WorkflowId) -> Vec<Event> {
        events(&self.bus, workflow)
    }

    pub fn types(&self, workflow: &WorkflowId) -> Vec<EventType> {
        self.events(workflow).iter().map(Event::event_type).collect()
    }

    pub fn generated(&self, workflow: &WorkflowId) -> ResponseGenerated {
        match self.bus.event(EventType::ResponseGenerated, workflow).map(|event| event.data) {
            Some(EventData::ResponseGenerated(generated)) => *generated,
            other => panic!("{workflow} should have an answer, but: {other:?}"),
        }
    }

    pub fn fetched(&self, workflow: &WorkflowId) -> ExternalDataFetched {
        match self.bus.event(EventType::ExternalDataFetched, workflow).map(|event| event.data) {
            Some(EventData::ExternalDataFetched(fetched)) => fetched,
            other => panic!("{workflow} should have external data, but: {other:?}"),
        }
    }

    /// Lets every task come to rest, then some time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.local.started.elapsed().as_secs_f64()
    }

    /// Nothing is in hand or waiting for a redelivery, and no credit was lost: a second wave gets through as well.
    pub fn assert_idle(&self) {
        for stage in StageName::ALL {
            assert_eq!(self.bus.in_hand(stage), 0, "{stage} should have nothing in hand");
        }
    }
}

impl Worker {
    /// The process dies: nothing that it was doing has an effect from now on.
    pub fn crash(self) {
        self.gate.die();
    }

    /// Drains; the stages' counts, added up.
    pub async fn drain(self, grace: Duration) -> Drained {
        let report = self.engine.drain(grace).await;
        assert_eq!(report.len(), StageName::ALL.len(), "every stage reports: {report:?}");
        report.iter().fold(Drained::default(), |sum, (_, one)| Drained {
            finished: sum.finished + one.finished,
            handed_back: sum.handed_back + one.handed_back,
        })
    }
}

/// Every event of a workflow that goes well.
pub const JOURNEY: [EventType; 5] = [
    EventType::InputValidated,
    EventType::ContextRetrieved,
    EventType::ExternalDataFetched,
    EventType::ResponseGenerated,
    EventType::InteractionSaved,
];

/// Reading every event of a long log after every change would take most of a test's time.
fn events(bus: &MemoryBus, workflow: &WorkflowId) -> Vec<Event> {
    let suffix = format!(".{}", workflow.token());
    let stored = bus.stored();
    let theirs = stored.iter().filter(|stored| stored.subject.ends_with(&suffix));
    theirs.map(|stored| decode(&stored.body).expect("stages publish what they can read")).collect()
}

pub fn id(workflow: &str) -> WorkflowId {
    WorkflowId::new(workflow).unwrap()
}

pub fn user(user: &str) -> UserId {
    UserId::new(user).unwrap()
}

pub fn session(session: &str) -> SessionId {
    SessionId::new(session).unwrap()
}

/// What the user said, as the model sees it.
pub fn question(request: &ModelRequest) -> String {
    request.messages.last().expect("a prompt has a question").content.clone()
}

/// What the model answers unless told otherwise.
pub fn reply_to(request: &ModelRequest) -> String {
    format!("re: {}", question(request))
}

/// The machine: its clock follows tokio's, its chance and its span ids are counted.
struct Local {
    started: Instant,
    random: AtomicU64,
    spans: AtomicU64,
}

impl Clock for Local {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap();
        Timestamp::from_unix_ms(EPOCH_UNIX_MS + elapsed)
    }
}

/// A machine's clock that somebody has set.
pub struct WrongClock {
    right: Arc<Local>,
    ahead_ms: AtomicI64,
}

impl WrongClock {
    /// It jumps: from now on it is so many hours ahead of the others.
    pub fn set_ahead_h(&self, hours: i64) {
        self.ahead_ms.store(hours * 3_600_000, Ordering::Relaxed);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        let right = self.right.now().unix_ms();
        Timestamp::from_unix_ms(right + self.ahead_ms.load(Ordering::Relaxed))
    }
}

impl Entropy for Local {
    fn next_u64(&self) -> u64 {
        splitmix(&self.random)
    }
}

impl Tracer for Local {
    fn adopt(&self, _: &tracing::Span, parent: Option<TraceParent>) -> TraceParent {
        let span = self.spans.fetch_add(1, Ordering::Relaxed);
        parent.map_or_else(|| TraceParent::root(u128::from(span), span), |parent| parent.child(span))
    }
}

/// Splitmix64 (<https://prng.di.unimi.it/splitmix64.c>): small, and good enough to shake things with.
pub fn splitmix(state: &AtomicU64) -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
