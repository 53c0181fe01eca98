//! Putting it together: ports and settings in, a running supervisor out.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef, concurrency::JoinHandle, rpc::CallResult};
use throughline_schemas::StageName;
use tokio::sync::Semaphore;

use crate::{
    delivery::{
        handler::EventHandler,
        max_deliveries::UndeliverableHandler,
        stage::{Drained, InboxKind, Stage, StageArgs},
    },
    dependency::{
        Collaborators, Dependency,
        announcer::Announcer,
        vitals::{DependencyKind, Trouble, Vitals},
    },
    memory_budget::{Budget, MemoryUse, StageMemory},
    metrics,
    model::{client::ModelClient, prompt::PromptTemplate},
    ports::{
        bus::Bus,
        clock::{Clock, Entropy},
        log::Keeper,
        model::Models,
        source::Sources,
        store::Store,
        tokenizer::Tokenizer,
        trace::Tracer,
    },
    retention::RetentionArgs,
    stages::{
        context::ContextStep,
        external::ExternalStep,
        generation::{GenerationStep, Prompts},
        input::InputStage,
        persistence::PersistenceStep,
    },
    supervision::{
        settings::{EngineSettings, SessionSettings, StageSettings},
        supervisor::{Supervisor, SupervisorArgs, SupervisorMessage, cause},
    },
    workflow::{
        interruptions::Interruptions, listener::ListenerArgs, stage_context::StageContext,
        starter::StarterArgs, sweeper::SweeperArgs, users::Users,
    },
};

/// How long the supervisor may take to answer a question about its stages.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);

/// Messages that the server has given up on, dead-lettered at once in each stage.
const BURIALS_AT_ONCE: usize = 4;

/// Time that draining may take beyond its grace period: stages hand back what is left.
const DRAIN_MARGIN: Duration = Duration::from_secs(5);

/// The world, as far as the engine is concerned.
#[derive(Clone)]
pub struct Ports {
    /// Events.
    pub bus: Arc<dyn Bus>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// External data.
    pub sources: Arc<dyn Sources>,
    /// Models.
    pub models: Arc<dyn Models>,
    /// Counts what models read.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Trace context.
    pub tracer: Arc<dyn Tracer>,
    /// The log as retention sees it; `None` where there is none to keep room in.
    pub keeper: Option<Keeper>,
}

/// A running worker process: its stages under one supervisor.
pub struct Engine {
    supervisor: ActorRef<SupervisorMessage>,
    ended: JoinHandle<()>,
    /// Why the supervisor gave up, if it has.
    why: Arc<OnceLock<String>>,
    vitals: Vitals,
    memory: Budget,
}

/// The engine could not start; the message says which stage and why.
#[derive(Debug, thiserror::Error)]
#[error("the stages could not start: {0}")]
pub struct StartError(String);

impl Engine {
    /// Starts the configured stages.
    pub async fn start(
        ports: Ports,
        settings: EngineSettings,
        template: PromptTemplate,
    ) -> Result<Self, StartError> {
        let failed = |error: ActorProcessingErr| StartError(cause(error.as_ref()));
        let (announcer, _) = Announcer::spawn(None, Announcer, ports.bus.clone())
            .await
            .map_err(|error| failed(error.into()))?;
        let vitals = Vitals::default();
        let collaborators = Collaborators {
            clock: Arc::clone(&ports.clock),
            entropy: Arc::clone(&ports.entropy),
            announcer: Some(announcer.clone()),
            vitals: vitals.clone(),
            recorded_gates: None,
        };
        let template = Arc::new(template);
        let interruptions = Interruptions::default();
        let memory = Budget::new(settings.message_memory);
        let builder = Builder {
            ports: &ports,
            settings: &settings,
            collaborators,
            template,
            interruptions: interruptions.clone(),
            memory: memory.clone(),
            users: Users::new(settings.users.clone()),
        };
        // A process that admits also starts what it held, sweeps, and keeps room in the log.
        let starter = settings.stages.get(&StageName::Input).map(|stage| StarterArgs {
            context: builder.context(StageName::Input, "starter_database", stage),
            users: builder.users.clone(),
            idle: settings.sessions.sweep.interval,
        });
        let sweeper = settings.stages.get(&StageName::Input).map(|stage| SweeperArgs {
            context: builder.context(StageName::Input, "sweeper_database", stage),
            settings: settings.sessions.sweep,
            entropy: Arc::clone(&ports.entropy),
        });
        let admits = settings.stages.contains_key(&StageName::Input);
        let retention = ports.keeper.clone().filter(|_| admits).map(|keeper| RetentionArgs {
            keeper,
            bus: ports.bus.clone(),
            store: Arc::clone(&ports.store),
            settings: settings.retention,
            users: builder.users.clone(),
            entropy: Arc::clone(&ports.entropy),
        });
        let quarantine = Arc::new(Semaphore::new(1));
        let mut stages = Vec::new();
        for (name, stage) in &settings.stages {
            metrics::begin(*name);
            let events = StageArgs {
                stage: builder.build(*name, stage)?,
                bus: Arc::clone(&ports.bus),
                slots: stage.concurrency.max(1),
                ack_wait: settings.ack_wait,
                limits: settings.delivery,
                inbox_kind: InboxKind::Events,
                quarantine: Arc::clone(&quarantine),
                entropy: Arc::clone(&ports.entropy),
                clock: Arc::clone(&ports.clock),
            };
            let undeliverable = StageArgs {
                stage: Arc::new(UndeliverableHandler(Arc::clone(&events.stage))),
                slots: BURIALS_AT_ONCE,
                inbox_kind: InboxKind::Undeliverable,
                ..events.clone()
            };
            stages.extend([events, undeliverable]);
        }
        let why = Arc::new(OnceLock::new());
        let args = SupervisorArgs {
            stages,
            listener: ListenerArgs { interruptions, bus: ports.bus.clone() },
            starter,
            sweeper,
            retention,
            announcer: announcer.get_cell(),
            restart: settings.restart,
            gave_up: Arc::clone(&why),
        };
        let (supervisor, ended) =
            Supervisor::spawn(None, Supervisor, args).await.map_err(|error| failed(error.into()))?;
        Ok(Self { supervisor, ended, why, vitals, memory })
    }

    /// Each stage of this process, and whether it is consuming at this moment.
    pub async fn status(&self) -> Vec<(StageName, bool)> {
        status(&self.supervisor).await
    }

    /// A handle that can ask for the [`Engine::status`] from elsewhere.
    pub fn observer(&self) -> Observer {
        Observer {
            supervisor: self.supervisor.clone(),
            vitals: self.vitals.clone(),
            memory: self.memory.clone(),
        }
    }

    /// Completes when the supervisor has ended by itself, which means that it gave up, and says why.
    pub async fn gave_up(&mut self) -> String {
        // A supervisor that panicked has given up, too.
        let _ = (&mut self.ended).await;
        self.why.get().cloned().unwrap_or_else(|| "the supervisor of the stages ended".to_owned())
    }

    /// Stops taking work, finishes what is in hand within `grace`, hands back the rest; says what became of it.
    pub async fn drain(self, grace: Duration) -> Vec<(StageName, Drained)> {
        // What waits for memory is handed back now: it would only begin.
        self.memory.close();
        let ask = |reply| SupervisorMessage::Drain { grace, reply };
        match self.supervisor.call(ask, Some(grace + DRAIN_MARGIN)).await {
            Ok(CallResult::Success(report)) => report,
            Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Vec::new(),
        }
    }
}

/// Asks a running engine how it is.
#[derive(Clone)]
pub struct Observer {
    supervisor: ActorRef<SupervisorMessage>,
    vitals: Vitals,
    memory: Budget,
}

impl Observer {
    /// See [`Engine::status`].
    pub async fn status(&self) -> Vec<(StageName, bool)> {
        status(&self.supervisor).await
    }

    /// The dependencies that fail at this moment, as far as this process's own calls show.
    pub fn troubles(&self) -> Vec<Trouble> {
        self.vitals.troubles()
    }

    /// How the memory for messages stands.
    pub fn memory(&self) -> MemoryUse {
        self.memory.usage()
    }
}

async fn status(supervisor: &ActorRef<SupervisorMessage>) -> Vec<(StageName, bool)> {
    match supervisor.call(SupervisorMessage::Status, Some(STATUS_TIMEOUT)).await {
        Ok(CallResult::Success(status)) => status,
        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Vec::new(),
    }
}

/// How many events of a stage may wait for room for large bodies. What waits in the one worker of the input stage would
/// hold up all inputs.
fn large_waits(stage: StageName, settings: &StageSettings) -> usize {
    match stage {
        StageName::Input => 0,
        StageName::Context | StageName::External | StageName::Generation | StageName::Persistence => {
            settings.concurrency / 2
        }
    }
}

/// Makes stages.
pub(crate) struct Builder<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) settings: &'a EngineSettings,
    pub(crate) collaborators: Collaborators,
    pub(crate) template: Arc<PromptTemplate>,
    pub(crate) interruptions: Interruptions,
    pub(crate) memory: Budget,
    pub(crate) users: Users,
}

impl Builder<'_> {
    fn context(&self, stage: StageName, database: &str, settings: &StageSettings) -> StageContext {
        StageContext {
            stage,
            bus: Arc::clone(&self.ports.bus),
            store: Arc::clone(&self.ports.store),
            database: Dependency::new(
                DependencyKind::Store,
                stage,
                database,
                settings.for_store(),
                self.collaborators.clone(),
            ),
            clock: Arc::clone(&self.ports.clock),
            interruptions: self.interruptions.clone(),
            large_waits: Arc::new(Semaphore::new(large_waits(stage, settings))),
        }
    }

    pub(crate) fn build(&self, name: StageName, stage: &StageSettings) -> Result<Arc<dyn Stage>, StartError> {
        let ports = self.ports;
        let context = self.context(name, "database", stage);
        let database = context.database.clone();
        let tracer = Arc::clone(&ports.tracer);
        let memory = StageMemory::new(name, self.memory.clone(), stage.concurrency);
        Ok(match name {
            StageName::Input => {
                let SessionSettings { when_busy, owner, sweep: _ } = self.settings.sessions;
                let users = self.users.clone();
                Arc::new(InputStage {
                    context,
                    limits: self.settings.ingress,
                    when_busy,
                    owner,
                    users,
                    tracer,
                })
            }
            StageName::Context => {
                let store = Arc::clone(&ports.store);
                let step = ContextStep { store, database, recent_turns: self.settings.recent_turns };
                Arc::new(EventHandler::new(step, context, tracer, memory))
            }
            StageName::External => {
                let specs = self.settings.sources.iter().map(|spec| {
                    let dependency = Dependency::new(
                        DependencyKind::Source,
                        name,
                        &spec.name,
                        spec.policy,
                        self.collaborators.clone(),
                    );
                    (spec.clone(), dependency)
                });
                let (sources, bus) = (Arc::clone(&ports.sources), Arc::clone(&ports.bus));
                let step = ExternalStep { sources, specs: specs.collect(), bus };
                Arc::new(EventHandler::new(step, context, tracer, memory))
            }
            StageName::Generation => {
                Arc::new(EventHandler::new(self.generation(stage)?, context, tracer, memory))
            }
            StageName::Persistence => {
                let (store, clock) = (Arc::clone(&ports.store), Arc::clone(&ports.clock));
                Arc::new(EventHandler::new(
                    PersistenceStep { store, database, clock },
                    context,
                    tracer,
                    memory,
                ))
            }
        })
    }

    fn generation(&self, stage: &StageSettings) -> Result<GenerationStep, StartError> {
        let settings = self.settings.generation.clone();
        let ports = self.ports;
        let client = ModelClient::new(
            Arc::clone(&ports.models),
            Arc::clone(&ports.tokenizer),
            settings.client,
            stage.for_calls(),
            self.collaborators.clone(),
        );
        Ok(GenerationStep {
            client: client.map_err(|error| StartError(error.to_string()))?,
            bus: Arc::clone(&ports.bus),
            prompts: Prompts {
                template: Arc::clone(&self.template),
                max_history_chars: settings.max_history_chars,
                vitals: self.collaborators.vitals.clone(),
                clock: Arc::clone(&self.collaborators.clock),
                entropy: Arc::clone(&self.collaborators.entropy),
            },
            config_id: settings.config_id,
        })
    }
}
