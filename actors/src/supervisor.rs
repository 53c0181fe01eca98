//! The supervisor: starts the stages in order, restarts them with backoff, gives up loudly, and drains.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use futures_util::future::join_all;
use ractor::{
    Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, concurrency::JoinHandle,
    rpc::CallResult,
};
use throughline_schemas::StageName;
use tokio::time::Instant;

use crate::{
    policy::retry::RetryPolicy,
    signals,
    stage::{Drained, StageActor, StageArgs, StageMessage},
};

/// When the supervisor stops restarting: more than `intensity` restarts, of all stages together, within `window`.
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
    /// When to give up.
    pub restart: RestartPolicy,
}

/// What a supervisor can be told.
pub enum SupervisorMessage {
    /// Start this stage again.
    Restart(StageName),
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

/// See the module's documentation.
pub struct Supervisor;

/// Private state of the supervisor.
pub struct SupervisorState {
    args: SupervisorArgs,
    running: HashMap<StageName, ActorRef<StageMessage>>,
    restarts: VecDeque<Instant>,
    draining: bool,
}

/// The supervisor gave up.
#[derive(Debug, thiserror::Error)]
#[error("stage {stage} failed {count} times within {window:?}, the last time with: {reason}")]
pub struct GaveUp {
    stage: StageName,
    count: usize,
    window: Duration,
    reason: String,
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
        for stage in &args.stages {
            running.insert(stage.stage.name(), start(stage, &myself).await?);
        }
        Ok(SupervisorState { args, running, restarts: VecDeque::new(), draining: false })
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Restart(name) if !state.draining => state.restart(&myself, name).await,
            SupervisorMessage::Restart(_) => Ok(()),
            SupervisorMessage::Status(reply) => {
                let status = state.args.stages.iter().map(|stage| {
                    let name = stage.stage.name();
                    (name, state.running.contains_key(&name))
                });
                let _ = reply.send(status.collect());
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

async fn start(
    stage: &StageArgs,
    supervisor: &ActorRef<SupervisorMessage>,
) -> Result<ActorRef<StageMessage>, ActorProcessingErr> {
    let (actor, _): (_, JoinHandle<()>) =
        StageActor::spawn_linked(None, StageActor, stage.clone(), supervisor.get_cell()).await?;
    Ok(actor)
}

impl SupervisorState {
    /// A child has ended: schedules its restart, or gives up.
    fn lost(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        child: ActorId,
        reason: &str,
    ) -> Result<(), ActorProcessingErr> {
        let Some(name) =
            self.running.iter().find(|(_, actor)| actor.get_id() == child).map(|(name, _)| *name)
        else {
            return Ok(());
        };
        self.running.remove(&name);
        if self.draining {
            return Ok(());
        }
        self.schedule(myself, name, reason)
    }

    fn schedule(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        stage: StageName,
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
            tracing::error!(%stage, reason, count, "stage keeps failing, giving up");
            return Err(GaveUp { stage, count, window, reason: reason.to_owned() }.into());
        }
        let made = u32::try_from(count).unwrap_or(u32::MAX);
        let delay = backoff.delay_after(made, None, u64::MAX).unwrap_or(backoff.max_delay);
        tracing::error!(%stage, reason, ?delay, "stage failed, restarting");
        // It ends with its actor, so nobody holds on to it.
        drop(myself.send_after(delay, move || SupervisorMessage::Restart(stage)));
        Ok(())
    }

    async fn restart(
        &mut self,
        myself: &ActorRef<SupervisorMessage>,
        name: StageName,
    ) -> Result<(), ActorProcessingErr> {
        let Some(stage) = self.args.stages.iter().find(|stage| stage.stage.name() == name) else {
            return Ok(());
        };
        signals::restarted(name);
        match start(stage, myself).await {
            Ok(actor) => {
                self.running.insert(name, actor);
                Ok(())
            }
            Err(error) => self.schedule(myself, name, &error.to_string()),
        }
    }

    /// All stages stop taking work at once; what is in hand goes on until the grace period ends.
    async fn drain(&mut self, grace: Duration) -> Vec<(StageName, Drained)> {
        self.draining = true;
        let stages = self.args.stages.iter().filter_map(|stage| {
            let name = stage.stage.name();
            self.running.get(&name).map(|actor| (name, actor.clone()))
        });
        join_all(stages.map(|(name, actor)| async move {
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
        .await
    }
}

/// How long a stage may take to hand back what it holds.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(2);
