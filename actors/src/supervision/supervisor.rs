//! The supervisor: starts the engine's parts in order, restarts them with backoff, gives up loudly, and drains.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::join_all;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SpawnErr, SupervisionEvent,
    concurrency::JoinHandle, rpc::CallResult,
};
use throughline_schemas::StageName;
use tokio::time::Instant;

use crate::{
    delivery::stage::{Drained, InboxKind, StageActor, StageArgs, StageMessage},
    metrics,
    policy::retry::RetryPolicy,
    retention::{Retention, RetentionArgs},
    workflow::{
        listener::{Listener, ListenerArgs},
        starter::{Starter, StarterArgs},
        sweeper::{Sweeper, SweeperArgs},
    },
};

/// When the supervisor stops restarting: more than `intensity` restarts, of all parts together, within `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts allowed.
    pub intensity: usize,
    /// In which time.
    pub window: Duration,
    /// Waits between them.
    pub backoff: RetryPolicy,
}

impl Default for RestartPolicy {
    /// Five restarts a minute, from 100 ms up to 5 s apart.
    fn default() -> Self {
        let backoff = RetryPolicy {
            max_attempts: u32::MAX,
            base_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(5),
        };
        Self { intensity: 5, window: Duration::from_mins(1), backoff }
    }
}

/// What the supervisor needs.
pub struct SupervisorArgs {
    /// Stages, in the order in which they start; they drain in the same order, upstream first.
    pub stages: Vec<StageArgs>,
    /// What subscribes to interruptions.
    pub listener: ListenerArgs,
    /// What starts turns that are held, in a process that admits.
    pub starter: Option<StarterArgs>,
    /// What looks for turns on which no worker works, in a process that admits.
    pub sweeper: Option<SweeperArgs>,
    /// What keeps room in the log, in a process that admits.
    pub retention: Option<RetentionArgs>,
    /// The actor that announces breakers. It is not restarted, since its senders keep a handle of it: its end ends
    /// the supervisor.
    pub announcer: ActorCell,
    /// When to give up.
    pub restart: RestartPolicy,
    /// Where to say why, for those that wait for the end.
    pub gave_up: Arc<OnceLock<String>>,
}

/// What a supervisor can be asked to do.
pub enum SupervisorMessage {
    /// Start this part again.
    Restart(Part),
    /// Which stages are consuming?
    Status(RpcReplyPort<Vec<(StageName, bool)>>),
    /// Stop taking work, finish what is in hand within the grace period, hand back the rest, and stop.
    Drain {
        /// How long work in hand may take.
        grace: Duration,
        /// What became of it.
        reply: RpcReplyPort<Vec<(StageName, Drained)>>,
    },
}

/// What is restarted when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// One stage actor: its stage, and which deliveries it takes.
    Stage(StageName, InboxKind),
    /// What subscribes to interruptions.
    Listener,
    /// What starts turns that are held.
    Starter,
    /// What looks for turns on which no worker works.
    Sweeper,
    /// What keeps room in the log.
    Retention,
}

impl Part {
    /// Its name as a metric's label.
    fn label(self) -> &'static str {
        match self {
            Self::Stage(stage, _) => stage.as_str(),
            Self::Listener => "listener",
            Self::Starter => "starter",
            Self::Sweeper => "sweeper",
            Self::Retention => "retention",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage, inbox_kind) => write!(f, "stage {stage} ({inbox_kind})"),
            Self::Listener | Self::Starter | Self::Sweeper | Self::Retention => {
                write!(f, "the {}", self.label())
            }
        }
    }
}

/// See the module's documentation.
pub struct Supervisor;

/// Private state of the supervisor.
pub struct SupervisorState {
    args: SupervisorArgs,
    running: HashMap<Part, ActorCell>,
    restarts: VecDeque<Instant>,
    draining: bool,
}

/// The supervisor gave up.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorFailed {
    /// Restarting did not help.
    #[error("{part} failed {count} times within {window:?}, the last time with: {reason}")]
    Part {
        /// Which one.
        part: Part,
        /// Failures of all parts.
        count: usize,
        /// Within this time.
        window: Duration,
        /// The last one's.
        reason: String,
    },
    /// Breakers would not be announced any more.
    #[error("the announcer of breaker transitions ended: {0}")]
    Announcer(String),
}

impl Actor for Supervisor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        args: SupervisorArgs,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let mut running = HashMap::new();
        for part in args.parts() {
            running.insert(part, args.start(part, &myself).await?);
        }
        args.announcer.link(myself.get_cell());
        Ok(SupervisorState { args, running, restarts: VecDeque::new(), draining: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Restart(part) if !state.draining => state.restart(&myself, part).await,
            SupervisorMessage::Restart(_) => Ok(()),
            SupervisorMessage::Status(reply) => {
                let _ = reply.send(state.status());
                Ok(())
            }
            SupervisorMessage::Drain { grace, reply } => {
                let report = state.drain(grace).await;
                let _ = reply.send(report);
                myself.stop(Some("drained".to_owned()));
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                state.lost(&myself, cell.get_id(), &error.to_string())
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                state.lost(&myself, cell.get_id(), reason.as_deref().unwrap_or("stopped without a reason"))
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
        }
    }
}

/// What a start failed of. ractor reports every error at a start as a panic.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<SpawnErr>() {
        Some(SpawnErr::StartupFailed(inner)) => cause(inner.as_ref()),
        _ => error.to_string(),
    }
}

fn part(stage: &StageArgs) -> Part {
    Part::Stage(stage.stage.name(), stage.inbox_kind)
}

impl SupervisorArgs {
    /// What is to run, in the order in which it starts. So stages receive interruptions until they stop, and what
    /// is swept up goes to stages that are there.
    fn parts(&self) -> Vec<Part> {
        let starter = self.starter.as_ref().map(|_| Part::Starter);
        let sweeper = self.sweeper.as_ref().map(|_| Part::Sweeper);
        let retention = self.retention.as_ref().map(|_| Part::Retention);
        let others = starter.into_iter().chain(sweeper).chain(retention);
        self.stages.iter().map(part).chain([Part::Listener]).chain(others).collect()
    }

    async fn start(
        &self,
        wanted: Part,
        supervisor: &ActorRef<SupervisorMessage>,
    ) -> Result<ActorCell, ActorProcessingErr> {
        let cell = supervisor.get_cell();
        // Joining is what the supervisor's events are for, so no handle is kept.
        match wanted {
            Part::Stage(..) => {
                let stage = self.stages.iter().find(|stage| part(stage) == wanted);
                let stage = stage.ok_or_else(|| format!("{wanted} is not one of this process"))?.clone();
                let (actor, _): (_, JoinHandle<()>) =
                    StageActor::spawn_linked(None, StageActor, stage, cell).await?;
                Ok(actor.get_cell())
            }
            Part::Listener => {
                let (actor, _) = Listener::spawn_linked(None, Listener, self.listener.clone(), cell).await?;
                Ok(actor.get_cell())
            }
            Part::Starter => {
                let starter = self.starter.clone().ok_or("this process starts no held turns")?;
                let (actor, _) = Starter::spawn_linked(None, Starter, starter, cell).await?;
                Ok(actor.get_cell())
            }
            Part::Sweeper => {
                let sweeper = self.sweeper.clone().ok_or("this process does not sweep")?;
                let (actor, _) = Sweeper::spawn_linked(None, Sweeper, sweeper, cell).await?;
                Ok(actor.get_cell())
            }
            Part::Retention => {
                let retention = self.retention.clone().ok_or("this process keeps no room in the log")?;
                let (actor, _) = Retention::spawn_linked(None, Retention, retention, cell).await?;
                Ok(actor.get_cell())
            }
        }
    }
}

impl SupervisorState {
    /// Each stage, and whether all of it is consuming.
    fn status(&self) -> Vec<(StageName, bool)> {
        let mut status: Vec<(StageName, bool)> = Vec::new();
        for stage in &self.args.stages {
            let (name, is_up) = (stage.stage.name(), self.running.contains_key(&part(stage)));
            match status.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all_up)) => *all_up &= is_up,
                None => status.push((name, is_up)),
            }
        }
        status
    }

    /// A child has ended: schedules its restart, or gives up.
    fn lost(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ActorId,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        if child == self.args.announcer.get_id() && !self.draining {
            tracing::error!(reason, "the announcer of breaker transitions ended, giving up");
            return self.give_up(SupervisorFailed::Announcer(reason.to_owned()));
        }
        let Some(part) =
            self.running.iter().find(|(_, actor)| actor.get_id() == child).map(|(part, _)| *part)
        else {
            return Ok(());
        };
        self.running.remove(&part);
        if self.draining {
            return Ok(());
        }
        self.schedule(myself, part, reason)
    }

    fn schedule(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        part: Part,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let RestartPolicy { intensity, window, backoff } = self.args.restart;
        let now = Instant::now();
        self.restarts.push_back(now);
        while self.restarts.front().is_some_and(|at| now - *at > window) {
            self.restarts.pop_front();
        }
        let count = self.restarts.len();
        if count > intensity {
            tracing::error!(%part, reason, count, "it keeps failing, giving up");
            return self.give_up(SupervisorFailed::Part { part, count, window, reason: reason.to_owned() });
        }
        let made = u32::try_from(count).unwrap_or(u32::MAX);
        let delay = backoff.delay_after(made, None, u64::MAX).unwrap_or(backoff.max_delay);
        tracing::error!(%part, reason, ?delay, "it failed, restarting");
        // It ends with its actor, so nothing else keeps a handle.
        drop(myself.send_after(delay, move || SupervisorMessage::Restart(part)));
        Ok(())
    }

    /// Ends the supervisor, and everything with it.
    fn give_up(&self, why: SupervisorFailed) -> Result<(), ActorProcessingErr> {
        // The first reason is the one that counts.
        let _ = self.args.gave_up.set(why.to_string());
        Err(why.into())
    }

    async fn restart(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        wanted: Part,
    ) -> Result<(), ActorProcessingErr> {
        metrics::restarted(wanted.label());
        match self.args.start(wanted, myself).await {
            Ok(actor) => {
                self.running.insert(wanted, actor);
                Ok(())
            }
            Err(error) => self.schedule(myself, wanted, &cause(error.as_ref())),
        }
    }

    /// All stages stop taking work at once; what is in hand goes on until the grace period ends.
    async fn drain(&mut self, grace: Duration) -> Vec<(StageName, Drained)> {
        self.draining = true;
        let stages = self.args.stages.iter().filter_map(|stage| {
            let actor = self.running.get(&part(stage))?;
            Some((stage.stage.name(), ActorRef::<StageMessage>::from(actor.clone())))
        });
        let reports = join_all(stages.map(|(name, actor)| async move {
            let drained = match actor.call(StageMessage::Drain, Some(grace)).await {
                Ok(CallResult::Success(drained)) => drained,
                Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => {
                    match actor.call(StageMessage::Abandon, Some(ABANDON_TIMEOUT)).await {
                        Ok(CallResult::Success(drained)) => drained,
                        Ok(CallResult::Timeout | CallResult::SenderError) | Err(_) => Drained::default(),
                    }
                }
            };
            (name, drained)
        }))
        .await;
        let mut report: Vec<(StageName, Drained)> = Vec::new();
        for (name, drained) in reports {
            match report.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += drained,
                None => report.push((name, drained)),
            }
        }
        report
    }
}

/// How long a stage may take to hand back what it holds.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(2);
