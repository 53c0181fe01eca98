//! The sweeper: finds turns that run according to the database and on which nobody works, and resumes them.
//!
//! That is the case when a process died between the commit that started a turn and the publish that says so, and when
//! events have vanished from the log with the power. A turn that is merely slow is left alone, whoever works on it
//! (`policy/sweep.rs`), until it exceeds the limit of a turn: then it fails and its session goes on.
//!
//! Several may run: all that they do is idempotent, or done by the one who is first. One sweep does a bounded amount of
//! work, and asks nothing of the bus while no turn is old enough.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use throughline_schemas::{
    EventType, FailureCode, Meta, StageName, Subject, Timestamp, TraceParent, WorkflowFailed, WorkflowId,
    decode,
};
use tokio::task::JoinSet;

use crate::{
    closing::Closer,
    policy::{
        settle::Outcome,
        sweep::{Work, judge},
    },
    ports::{
        bus::{BusError, Position, Published, consumer_of},
        clock::Entropy,
        store::{Opening, RunningQuery, RunningTurn},
    },
    signals, untold,
};

/// Turns listed at once.
const PAGE: usize = 256;
/// Turns that are looked at in one sweep; the others are looked at in the next one.
const MOST: usize = 2_048;

/// When to sweep, and how long a turn may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSettings {
    /// Time between two sweeps. A turn that runs for less than that is not looked at.
    pub interval: Duration,
    /// How long a turn may run before it is failed.
    pub turn_limit: Duration,
}

impl Default for SweepSettings {
    /// Every 10 s; one hour.
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), turn_limit: Duration::from_hours(1) }
    }
}

/// What a sweeper needs.
#[derive(Clone)]
pub struct SweeperArgs {
    /// Ends, releases and publishes; knows bus and database.
    pub closer: Closer,
    /// When.
    pub settings: SweepSettings,
    /// For jitter, so that processes that started together do not sweep together.
    pub entropy: Arc<dyn Entropy>,
}

/// See the module's documentation.
pub struct Sweeper;

/// Time for the next sweep.
pub struct Sweep;

/// Private state of the sweeper.
pub struct SweeperState {
    args: SweeperArgs,
    seen: Seen,
}

impl Actor for Sweeper {
    type Msg = Sweep;
    type State = SweeperState;
    type Arguments = SweeperArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Sweep>,
        args: SweeperArgs,
    ) -> Result<SweeperState, ActorProcessingErr> {
        drop(myself.send_after(args.wait(), || Sweep));
        Ok(SweeperState { args, seen: Seen::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Sweep>,
        Sweep: Sweep,
        state: &mut SweeperState,
    ) -> Result<(), ActorProcessingErr> {
        // In a task of its own, so that a panic ends that sweep and not the sweeping. It ends with this actor.
        let mut task = JoinSet::new();
        let (args, mut seen) = (state.args.clone(), std::mem::take(&mut state.seen));
        task.spawn(async move { args.sweep(&mut seen).await.map(|()| seen) });
        match task.join_next().await {
            Some(Ok(Ok(seen))) => state.seen = seen,
            // What was seen may not hold any more, so the next sweep looks at everything again.
            Some(Ok(Err(why))) => tracing::debug!(why, "sweep not finished"),
            Some(Err(error)) => tracing::error!(%error, "sweep panicked"),
            None => {}
        }
        // It ends with its actor, so nobody holds on to it.
        drop(myself.send_after(state.args.wait(), || Sweep));
        Ok(())
    }
}

/// What earlier sweeps found out.
#[derive(Default)]
struct Seen {
    /// The last turn that was looked at, in the order in which turns start.
    until: Option<(Timestamp, WorkflowId)>,
    /// Turns that somebody works on, and where: they are looked at again when that event is settled.
    held: HashMap<WorkflowId, (RunningTurn, StageName, u64)>,
    /// Turns whose latest event was settled without a successor, and its sequence: the next sweep acts.
    lost: HashMap<WorkflowId, u64>,
    /// The end of the log at that time.
    last: u64,
}

impl SweeperArgs {
    /// The interval, up to a quarter longer.
    fn wait(&self) -> Duration {
        let quarter = u64::try_from(self.settings.interval.as_millis() / 4).unwrap_or(u64::MAX);
        self.settings.interval + Duration::from_millis(self.entropy.next_u64() % quarter.max(1))
    }

    fn ago(&self, time: Duration) -> Timestamp {
        let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(self.closer.clock.now().unix_ms().saturating_sub(ms))
    }

    /// The error says why the sweep ended early.
    async fn sweep(&self, seen: &mut Seen) -> Result<(), String> {
        self.end_stalled().await?;
        let mut looked_at = 0;
        let mut page = self.page(seen).await?;
        if page.is_empty() && seen.held.is_empty() {
            return Ok(());
        }
        let mut position = self.position().await?;
        if position.last < seen.last {
            tracing::warn!(
                from = seen.last,
                to = position.last,
                "the event log has lost events; looking at every turn again"
            );
            *seen = Seen::default();
            page = self.page(seen).await?;
        }
        seen.last = position.last;
        let is_settled = |(_, stage, sequence): &(RunningTurn, StageName, u64)| {
            position.settled.get(stage).is_some_and(|settled| sequence <= settled)
        };
        let settled: Vec<RunningTurn> =
            seen.held.extract_if(|_, held| is_settled(held)).map(|(_, (turn, ..))| turn).collect();
        for turn in settled {
            self.look_at(turn, &position, seen).await?;
        }
        while looked_at < MOST && !page.is_empty() {
            looked_at += page.len();
            for turn in page {
                let place = (turn.started_at, turn.workflow_id.clone());
                self.look_at(turn, &position, seen).await?;
                seen.until = Some(place);
            }
            page = self.page(seen).await?;
            position = self.position().await?;
        }
        Ok(())
    }

    async fn page(&self, seen: &Seen) -> Result<Vec<RunningTurn>, String> {
        let started_by = self.ago(self.settings.interval);
        self.running(RunningQuery { started_by, after: seen.until.clone(), limit: PAGE }).await
    }

    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, String> {
        self.closer.store.running(query).await.map_err(|error| error.to_string())
    }

    async fn position(&self) -> Result<Position, String> {
        self.closer.bus.position().await.map_err(|error| error.to_string())
    }

    /// Resumes a turn that nobody works on; remembers one that somebody does.
    async fn look_at(&self, turn: RunningTurn, position: &Position, seen: &mut Seen) -> Result<(), String> {
        let latest = self
            .closer
            .bus
            .latest(&turn.session_id, &turn.workflow_id)
            .await
            .map_err(|error| told(&error))?;
        match (judge(latest.as_ref(), position), latest) {
            (Work::Held { stage, sequence }, _) => {
                seen.lost.remove(&turn.workflow_id);
                seen.held.insert(turn.workflow_id.clone(), (turn, stage, sequence));
            }
            (Work::NotBegun, _) => {
                if self.begin(&turn).await? {
                    // The next sweep looks at what became of it.
                    seen.held.insert(turn.workflow_id.clone(), (turn, StageName::Context, 0));
                }
            }
            // Seen once, it may be a message that the server has given up on and that is about to be buried.
            (Work::Lost { stage }, Some(latest))
                if seen.lost.insert(turn.workflow_id.clone(), latest.sequence) != Some(latest.sequence) =>
            {
                seen.held.insert(turn.workflow_id.clone(), (turn, stage, latest.sequence));
            }
            (Work::Lost { stage }, Some(latest)) => {
                seen.lost.remove(&turn.workflow_id);
                if self.runs(&turn).await? {
                    let subject = Subject::new(latest.event_type, &turn.session_id, &turn.workflow_id);
                    let again = self.closer.bus.publish_again(&subject, latest.sequence).await;
                    if again.map_err(|error| told(&error))? == Published::New {
                        told_of(&turn, stage);
                    }
                    // What becomes of it may vanish, too.
                    seen.held.insert(turn.workflow_id.clone(), (turn, stage, latest.sequence));
                }
            }
            (Work::Lost { .. } | Work::Ended, _) => {
                seen.lost.remove(&turn.workflow_id);
            }
        }
        Ok(())
    }

    /// Says whether the turn still runs.
    async fn begin(&self, turn: &RunningTurn) -> Result<bool, String> {
        let opening =
            self.closer.store.opening(&turn.workflow_id).await.map_err(|error| error.to_string())?;
        // None: it has ended meanwhile.
        if opening.is_none() {
            return Ok(false);
        }
        told_of(turn, StageName::Input);
        // A beginning that this version cannot read, for one, must not keep the sweep from the turns behind it.
        if let Err(why) = outcome(self.begin_behind_the_last(turn, opening).await) {
            tracing::warn!(workflow = %turn.workflow_id, why, "a turn cannot be begun here");
        }
        Ok(true)
    }

    async fn begin_behind_the_last(&self, turn: &RunningTurn, opening: Option<Opening>) -> Outcome {
        let place = (turn.session_id.clone(), turn.input_sequence);
        let untold = match untold::before(&self.closer, &[place]).await {
            Ok(untold) => untold,
            Err(away) => return away,
        };
        for ended in untold.values() {
            if let Err(outcome) = untold::tell(&self.closer, &turn.session_id, ended).await {
                return outcome;
            }
        }
        self.closer.release(opening).await
    }

    async fn runs(&self, turn: &RunningTurn) -> Result<bool, String> {
        let opening = self.closer.store.opening(&turn.workflow_id).await;
        opening.map(|opening| opening.is_some()).map_err(|error| error.to_string())
    }

    /// Fails turns that have run for too long, which starts the next ones of their sessions.
    async fn end_stalled(&self) -> Result<(), String> {
        let limit = self.settings.turn_limit;
        let query = RunningQuery { started_by: self.ago(limit), after: None, limit: PAGE };
        for turn in self.running(query).await? {
            let latest = self
                .closer
                .bus
                .latest(&turn.session_id, &turn.workflow_id)
                .await
                .map_err(|error| told(&error))?;
            let stage = latest.as_ref().and_then(|latest| consumer_of(latest.event_type));
            let cause = self.cause(&turn).await?;
            let ended = match stage {
                // The log has its end, and the database does not.
                None if latest.is_some() => self.closer.finish(&cause, turn.input_sequence).await,
                stage => {
                    self.closer.interruptions.announce(self.closer.bus.as_ref(), &turn.workflow_id).await;
                    let failed = stalled(stage.unwrap_or(StageName::Input), limit);
                    self.closer.fail(&cause, turn.input_sequence, failed, cause.traceparent).await
                }
            };
            outcome(ended)?;
        }
        Ok(())
    }

    /// The envelope of what the turn began with; of a turn whose beginning is not known, one that is made up.
    async fn cause(&self, turn: &RunningTurn) -> Result<Meta, String> {
        let opening =
            self.closer.store.opening(&turn.workflow_id).await.map_err(|error| error.to_string())?;
        if let Some(event) = opening.and_then(|opening| decode(&opening.event).ok()) {
            return Ok(event.meta);
        }
        Ok(Meta {
            id: format!("{}.{}", turn.workflow_id.token(), EventType::InputValidated),
            source: format!("throughline/{}", StageName::Input),
            time: turn.started_at,
            workflow_id: turn.workflow_id.clone(),
            session_id: turn.session_id.clone(),
            user_id: turn.user_id.clone(),
            causation_id: None,
            traceparent: TraceParent::root(u128::from(self.entropy.next_u64()), self.entropy.next_u64()),
            attempt: 1,
        })
    }
}

fn told(error: &BusError) -> String {
    error.to_string()
}

fn told_of(turn: &RunningTurn, stage: StageName) {
    signals::resumed(stage);
    tracing::warn!(workflow = %turn.workflow_id, %stage, since = %turn.started_at, "nobody worked on a turn; resumed");
}

fn outcome(outcome: Outcome) -> Result<(), String> {
    match outcome {
        // Then another one goes on with it.
        Outcome::Done | Outcome::TakenOver => Ok(()),
        Outcome::Later { reason, .. } | Outcome::Died { reason, .. } => Err(reason),
        Outcome::Unusable { error, .. } => Err(error),
    }
}

fn stalled(stage: StageName, limit: Duration) -> WorkflowFailed {
    WorkflowFailed {
        code: FailureCode::Stalled,
        stage,
        message: format!(
            "the turn ran longer than {} s (sessions.turn_limit_ms), and its session goes on without it",
            limit.as_secs()
        ),
        attempts: 1,
        retryable: true,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    }
}
