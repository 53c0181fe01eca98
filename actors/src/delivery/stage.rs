//! The stage actor: owns its intake and its workers, and never waits on the network in a handler.
//!
//! ```text
//!   bus ── Inbox ──> intake task ── Arrived ──> stage actor ── Work ──> worker (linked child)
//!                        ^                        │    ^                  │
//!                        └──── credit ────────────┘    └──── Finished ────┘
//! ```
//!
//! Credit bounds everything: the inbox is granted as many deliveries as there are free slots, so the mailbox, the
//! queue and the workers together never hold more than `slots`. Work waits in the server, not here.

mod drain;
mod history;
mod intake;
mod leased;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    ops::AddAssign,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use throughline_schemas::{FailureCode, StageName};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};

use history::History;

use crate::{
    delivery::{
        claims::Claims,
        worker::{Work, Worker, WorkerArgs},
    },
    metrics,
    policy::{
        limits::{DeliveryLimits, PROGRESS_PER_ACK_WAIT, WORK_LIMIT},
        settle::Outcome,
    },
    ports::{
        bus::{Bus, BusError, Delivery, Receipt},
        clock::{Clock, Entropy},
    },
};

/// What a stage does with its deliveries.
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    /// Which stage it is.
    fn name(&self) -> StageName;
    /// Most deliveries handled together; more than one also means that one worker at a time does it, in order.
    fn batch_limit(&self) -> usize;
    /// Handles a batch: one outcome for each delivery, in their order.
    async fn handle(&self, batch: &[Delivery]) -> Vec<Outcome>;
    /// Stores a dead letter and ends its workflow. `Err` if that is not possible now.
    async fn dead_letter(&self, delivery: &Delivery, code: FailureCode, error: &str) -> Result<(), Outcome>;
}

/// What a stage actor needs.
#[derive(Clone)]
pub struct StageArgs {
    /// What to do with deliveries.
    pub stage: Arc<dyn Stage>,
    /// Where they come from.
    pub bus: Arc<dyn Bus>,
    /// Deliveries in hand at once.
    pub slots: usize,
    /// The server's redelivery timer.
    pub ack_wait: Duration,
    /// How often one message may come.
    pub limits: DeliveryLimits,
    /// Which deliveries it takes.
    pub inbox_kind: InboxKind,
    /// One permit for the whole process; see [`Claims`].
    pub quarantine: Arc<Semaphore>,
    /// See [`Claims`].
    pub entropy: Arc<dyn Entropy>,
    /// Tells how late a delivery comes.
    pub clock: Arc<dyn Clock>,
}

/// Which deliveries a stage actor takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InboxKind {
    /// The stage's own.
    Events,
    /// Those that the server has given up on.
    Undeliverable,
}

impl fmt::Display for InboxKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Events => "events",
            Self::Undeliverable => "exhausted deliveries",
        })
    }
}

/// Everything that can wake a stage actor.
pub enum StageMessage {
    /// The intake received a delivery.
    Arrived(Delivery),
    /// The intake ended; there is no other way for it to end than an error of the bus.
    IntakeEnded(BusError),
    /// A worker has settled its batch.
    Finished {
        /// Which worker.
        worker: ActorId,
        /// How many deliveries.
        count: usize,
    },
    /// Time to report progress, and to look for workers that hang.
    Tick,
    /// Take nothing more; answer when everything in hand is settled.
    Drain(RpcReplyPort<Drained>),
    /// The grace period is over: hand back what is in hand, and stop.
    Abandon(RpcReplyPort<Drained>),
}

/// What became of the deliveries that were in hand when draining began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Settled by their workers.
    pub finished: usize,
    /// Handed back to the server.
    pub handed_back: usize,
}

impl AddAssign for Drained {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.handed_back += other.handed_back;
    }
}

/// See the module's documentation.
pub struct StageActor;

struct Busy {
    worker: ActorRef<Work>,
    /// Shared with the worker, which may not live to give it back.
    batch: Arc<[Delivery]>,
    since: Instant,
    /// It settles what killed another worker.
    aftermath: bool,
}

/// Private state of a stage actor.
pub struct StageState {
    args: StageArgs,
    credit: mpsc::Sender<usize>,
    intake: JoinHandle<()>,
    progress: Option<JoinHandle<()>>,
    queue: VecDeque<Delivery>,
    history: History,
    /// Sequences of queued deliveries whose worker died while it had others in hand, too.
    suspects: HashSet<u64>,
    idle: Vec<ActorRef<Work>>,
    busy: HashMap<ActorId, Busy>,
    draining: Option<(Drained, Vec<RpcReplyPort<Drained>>)>,
}

impl Actor for StageActor {
    type Msg = StageMessage;
    type State = StageState;
    type Arguments = StageArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<StageMessage>,
        args: StageArgs,
    ) -> Result<StageState, ActorProcessingErr> {
        let name = args.stage.name();
        let mut inbox = match args.inbox_kind {
            InboxKind::Events => args.bus.open(name).await?,
            InboxKind::Undeliverable => args.bus.open_undeliverable(name).await?,
        };
        // Asked before anything is delivered: what comes later is behind it.
        let history = match args.inbox_kind {
            InboxKind::Events if name != StageName::Input => History::since(args.bus.position().await?.last),
            // The database tells inputs apart, and what the server has given up on was delivered before.
            InboxKind::Events | InboxKind::Undeliverable => History::since(0),
        };
        inbox.grant(args.slots).await?;
        // At most one message per slot can be under way, so sending credit never waits.
        let (credit, credits) = mpsc::channel(args.slots + 1);
        let intake = tokio::spawn(intake::run(inbox, credits, myself.clone()));
        // It ends with its actor, so nothing else keeps a handle.
        drop(myself.send_interval(args.ack_wait / PROGRESS_PER_ACK_WAIT, || StageMessage::Tick));
        match args.inbox_kind {
            InboxKind::Events => tracing::info!(stage = %name, slots = args.slots, "stage started"),
            InboxKind::Undeliverable => tracing::debug!(stage = %name, "dead-lettering started"),
        }
        Ok(StageState {
            args,
            credit,
            intake,
            progress: None,
            queue: VecDeque::new(),
            history,
            suspects: HashSet::new(),
            idle: Vec::new(),
            busy: HashMap::new(),
            draining: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<StageMessage>,
        message: StageMessage,
        state: &mut StageState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StageMessage::Arrived(delivery) if state.draining.is_some() => state.hand_back_late(delivery),
            StageMessage::Arrived(delivery) => {
                let delivery = state.history.mark(delivery, state.args.clock.now());
                state.queue.push_back(leased::leased(delivery, state.args.ack_wait));
                state.dispatch(&myself).await?;
            }
            StageMessage::IntakeEnded(error) => {
                // The workers end with this actor; what they hold need not wait for the server's timer.
                state.abandon();
                return Err(error.into());
            }
            StageMessage::Finished { worker, count } => {
                // A worker that was killed as it finished has been replaced; its replacement answers.
                let Some(busy) = state.busy.remove(&worker) else { return Ok(()) };
                state.idle.push(busy.worker);
                state.release(count);
                state.dispatch(&myself).await?;
                state.answer_if_drained(count);
            }
            StageMessage::Tick => state.tick(),
            StageMessage::Drain(reply) => state.drain(reply),
            StageMessage::Abandon(reply) => {
                let drained = state.abandon();
                state.answer_when_handed_back(vec![reply], drained);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<StageMessage>,
        event: SupervisionEvent,
        state: &mut StageState,
    ) -> Result<(), ActorProcessingErr> {
        let (worker, reason) = match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                (cell.get_id(), format!("the worker panicked: {error}"))
            }
            SupervisionEvent::ActorTerminated(cell, _, reason) => (
                cell.get_id(),
                format!("the worker was stopped: {}", reason.as_deref().unwrap_or("no reason given")),
            ),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        state.idle.retain(|idle| idle.get_id() != worker);
        let Some(busy) = state.busy.remove(&worker) else { return Ok(()) };
        let name = state.args.stage.name();
        metrics::worker_died(name);
        tracing::error!(stage = %name, reason, deliveries = busy.batch.len(), "worker died");
        if busy.aftermath {
            // Not even settling it is safe. It comes again, until the server has had enough of it.
            let count = busy.batch.len();
            state.hand_back(busy.batch.to_vec(), state.args.limits.delay_after_death);
            state.release(count);
            state.dispatch(&myself).await?;
            state.answer_if_drained(count);
            return Ok(());
        }
        if busy.batch.len() > 1 && state.draining.is_none() {
            // One of them did it. Each is handled again alone, now, so that the others neither wait nor lose their
            // place in the order.
            state.suspects.extend(busy.batch.iter().map(|delivery| delivery.sequence));
            for delivery in busy.batch.iter().rev() {
                state.queue.push_front(delivery.clone());
            }
            return state.dispatch(&myself).await;
        }
        state.give(&myself, busy.batch, Some(reason)).await
    }

    async fn post_stop(
        &self,
        _: ActorRef<StageMessage>,
        state: &mut StageState,
    ) -> Result<(), ActorProcessingErr> {
        state.intake.abort();
        Ok(())
    }
}

impl StageState {
    fn in_hand(&self) -> usize {
        self.queue.len() + self.busy.values().map(|busy| busy.batch.len()).sum::<usize>()
    }

    /// Gives queued deliveries to workers, as many as there are workers to be had.
    async fn dispatch(&mut self, myself: &ActorRef<StageMessage>) -> Result<(), ActorProcessingErr> {
        let limit = self.args.stage.batch_limit();
        let workers = if limit > 1 { 1 } else { self.args.slots };
        while !self.queue.is_empty() && self.busy.len() < workers {
            // What came before and was not settled may be what killed its worker: it goes alone.
            let suspect =
                |delivery: &Delivery| delivery.delivered > 1 || self.suspects.contains(&delivery.sequence);
            let take = match self.queue.front() {
                Some(first) if suspect(first) => 1,
                _ => self.queue.iter().take(limit).take_while(|delivery| !suspect(delivery)).count(),
            };
            let batch: Arc<[Delivery]> = self.queue.drain(..take).collect();
            for delivery in batch.iter() {
                self.suspects.remove(&delivery.sequence);
            }
            self.give(myself, batch, None).await?;
        }
        if self.args.inbox_kind == InboxKind::Events {
            metrics::in_flight(self.args.stage.name(), self.in_hand());
        }
        Ok(())
    }

    /// Gives a batch to a worker: to handle it or, with the reason for which another worker died, to settle it.
    async fn give(
        &mut self,
        myself: &ActorRef<StageMessage>,
        batch: Arc<[Delivery]>,
        died: Option<String>,
    ) -> Result<(), ActorProcessingErr> {
        let worker = match self.idle.pop() {
            Some(worker) => worker,
            None => self.hire(myself).await?,
        };
        let aftermath = died.is_some();
        worker.cast(match died {
            None => Work::Handle(Arc::clone(&batch)),
            Some(reason) => Work::Aftermath(Arc::clone(&batch), reason),
        })?;
        self.busy.insert(worker.get_id(), Busy { worker, batch, since: Instant::now(), aftermath });
        Ok(())
    }

    async fn hire(&self, myself: &ActorRef<StageMessage>) -> Result<ActorRef<Work>, ActorProcessingErr> {
        let args = WorkerArgs {
            stage: Arc::clone(&self.args.stage),
            parent: myself.clone(),
            limits: self.args.limits,
            claims: match self.args.inbox_kind {
                InboxKind::Events => Some(Claims {
                    stage: self.args.stage.name(),
                    bus: self.args.bus.clone(),
                    quarantine: Arc::clone(&self.args.quarantine),
                    entropy: Arc::clone(&self.args.entropy),
                    limits: self.args.limits,
                }),
                InboxKind::Undeliverable => None,
            },
        };
        // Joining is supervision's business, so the handle is not kept.
        let (worker, _) = Worker::spawn_linked(None, Worker, args, myself.get_cell()).await?;
        Ok(worker)
    }

    fn release(&mut self, count: usize) {
        if self.draining.is_none() && self.credit.try_send(count).is_err() {
            tracing::debug!(stage = %self.args.stage.name(), "the intake has ended, credit is not needed");
        }
    }

    /// Keeps everything in hand alive at the server, and kills workers that exceed the work limit.
    fn tick(&mut self) {
        for busy in self.busy.values().filter(|busy| busy.since.elapsed() > WORK_LIMIT) {
            tracing::error!(stage = %self.args.stage.name(), limit = ?WORK_LIMIT, "worker exceeds the work limit");
            busy.worker.kill();
        }
        let held: Vec<Arc<dyn Receipt>> = self
            .queue
            .iter()
            .chain(self.busy.values().flat_map(|busy| busy.batch.iter()))
            .map(|delivery| Arc::clone(&delivery.receipt))
            .collect();
        let under_way = self.progress.as_ref().is_some_and(|task| !task.is_finished());
        if held.is_empty() || under_way {
            return;
        }
        self.progress = Some(tokio::spawn(async move {
            let reports = join_all(held.iter().map(|receipt| receipt.progress())).await;
            if let Some(Err(error)) = reports.into_iter().find(Result::is_err) {
                tracing::warn!(%error, "progress not reported, deliveries may come twice");
            }
        }));
    }
}
