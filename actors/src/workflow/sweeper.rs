//! The sweeper: finds turns that run according to the database and on which no worker works, and resumes them.
//!
//! That is the case when a process died between the commit that started a turn and the publish that says so, and when
//! events have vanished from the log with the power. A turn that is merely slow is left alone, whichever worker has it
//! (`policy/sweep.rs`), until it exceeds the limit of a turn: then it fails and its session goes on.
//!
//! What is too old is never judged by the wall clock of this process, nor by instants that another one wrote: ages are
//! the server's (when the event was stored, against what time it is there), or counted since this process first saw
//! the turn.
//!
//! Several may run: all that they do is idempotent, or done by the one who is first. One sweep does a bounded amount of
//! work, and asks nothing of the bus while no turn is old enough.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use throughline_schemas::{StageName, Subject, Timestamp, decode};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    metrics,
    policy::{
        settle::Outcome,
        sweep::{Work, judge},
    },
    ports::{
        bus::{Latest, Position, Published},
        clock::Entropy,
        store::{Opening, RunningQuery, RunningTurn},
    },
    workflow::{end_from_log, missing_end, stage_context::StageContext},
};
use catch_up::CatchUp;
use census::Census;
use seen::Seen;

mod catch_up;
mod census;
mod overdue;
mod seen;

/// Turns listed at once.
const PAGE: usize = 256;
/// Pages listed in one sweep; the next one goes on behind them.
const LISTED_PAGES: usize = 64;
/// Turns that are looked at in one sweep; the others are looked at in the next one.
const MOST: usize = 2_048;
/// No turn has started later, whatever clock its process has.
const ANY_TIME_UNIX_MS: i64 = 253_402_300_799_000;

/// When to sweep, and how long a turn may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSettings {
    /// Time between two sweeps. A turn that was first seen less than that ago is not looked at.
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
    pub context: StageContext,
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
    catch_up: CatchUp,
    census: Census,
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
        // The first one only notes which turns there are: how long they have run is counted from then.
        myself.send_message(Sweep)?;
        Ok(SweeperState {
            args,
            seen: Seen::default(),
            catch_up: CatchUp::default(),
            census: Census::default(),
        })
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
        let has_seen_turns = state.seen.take_news();
        if let Err(why) = state.catch_up.step(&state.args.context, has_seen_turns).await {
            tracing::debug!(why, "the database was not compared with the log");
        }
        state.census.take(&state.args.context).await;
        // It ends with its actor, so nothing else keeps a handle.
        drop(myself.send_after(state.args.wait(), || Sweep));
        Ok(())
    }
}

impl SweeperArgs {
    /// The interval, up to a quarter longer.
    fn wait(&self) -> Duration {
        let quarter = u64::try_from(self.settings.interval.as_millis() / 4).unwrap_or(u64::MAX);
        self.settings.interval + Duration::from_millis(self.entropy.next_u64() % quarter.max(1))
    }

    /// The error says why the sweep ended early.
    async fn sweep(&self, seen: &mut Seen) -> Result<(), String> {
        let now = Instant::now();
        self.list(seen, now).await?;
        if !seen.have_work(now, self.settings.interval) {
            return Ok(());
        }
        let mut position = self.position().await?;
        if position.last < seen.last {
            tracing::warn!(
                from = seen.last,
                to = position.last,
                "the event log has lost events; looking at every turn again"
            );
            seen.look_again();
        }
        seen.last = position.last;
        for (n, turn) in seen.due(now, self.settings.interval, &position, MOST).into_iter().enumerate() {
            if n > 0 && n.is_multiple_of(PAGE) {
                position = self.position().await?;
            }
            self.look_at(&turn, &position, seen).await?;
        }
        self.end_overdue(seen, &position).await
    }

    /// Notes turns that were not seen before.
    async fn list(&self, seen: &mut Seen, now: Instant) -> Result<(), String> {
        let any_time = Timestamp::from_unix_ms(ANY_TIME_UNIX_MS);
        seen.begin_pass();
        for _ in 0..LISTED_PAGES {
            let query = RunningQuery { started_by: any_time, after: seen.listed_to(), limit: PAGE };
            let page = self.context.store.running(query).await.map_err(|error| error.to_string())?;
            let is_last = page.len() < PAGE;
            for turn in page {
                seen.note(turn, now);
            }
            if is_last {
                seen.end_pass(true);
                return Ok(());
            }
        }
        seen.end_pass(false);
        Ok(())
    }

    async fn position(&self) -> Result<Position, String> {
        self.context.bus.position().await.map_err(|error| error.to_string())
    }

    async fn latest(&self, turn: &RunningTurn) -> Result<Option<Latest>, String> {
        let latest = self.context.bus.latest(&turn.session_id, &turn.workflow_id).await;
        latest.map_err(|error| error.to_string())
    }

    /// Resumes a turn on which no worker works; remembers one that is being worked on.
    async fn look_at(&self, turn: &RunningTurn, position: &Position, seen: &mut Seen) -> Result<(), String> {
        let id = &turn.workflow_id;
        seen.look(turn);
        let latest = self.latest(turn).await?;
        let work = judge(latest.as_ref(), position);
        if work != Work::Ended && seen.needs_deadline(id) {
            let age = self.age(turn, latest.as_ref(), position).await?;
            seen.set_deadline(id, self.settings.turn_limit, age);
        }
        match (work, latest) {
            (Work::Held { stage, sequence }, _) => seen.hold(id, stage, sequence),
            (Work::NotBegun, _) => {
                if self.begin(turn).await? {
                    // The next sweep looks at what became of it.
                    seen.hold(id, StageName::Context, 0);
                } else {
                    seen.forget(id);
                }
            }
            // Seen once, it may be a message that the server has given up on and that is about to be dead-lettered.
            (Work::Lost { stage }, Some(latest)) if seen.lose(id, stage, latest.sequence) => {}
            (Work::Lost { stage }, Some(latest)) => {
                if self.runs(turn).await? {
                    let subject = Subject::new(latest.key, &turn.session_id, id);
                    if let Some(error) = self.unreadable(&subject).await? {
                        self.end_unreadable(turn, stage, &error).await?;
                        seen.forget(id);
                        return Ok(());
                    }
                    let again = self.context.bus.publish_again(&subject, latest.sequence).await;
                    if again.map_err(|error| error.to_string())? == Published::New {
                        log_resumed(turn, stage);
                    }
                    // What becomes of it may vanish, too.
                    seen.hold(id, stage, latest.sequence);
                } else {
                    seen.forget(id);
                }
            }
            (Work::Lost { .. } | Work::Ended, _) => {
                if self.runs(turn).await? {
                    // The log has the end of a turn that runs in the database: that one is older.
                    let along =
                        end_from_log::close_along(&self.context, &turn.session_id, id, turn.input_sequence);
                    if along.await.or_else(|outcome| done(outcome).map(|()| 1))? == 0 {
                        tracing::warn!(workflow = %id, "the log has the end of a turn, and not what it answers");
                    }
                }
                seen.forget(id);
            }
        }
        Ok(())
    }

    /// Why this version cannot read a turn's last event, if it cannot. It was dead-lettered: published again, it would
    /// be dead-lettered again.
    async fn unreadable(&self, subject: &Subject) -> Result<Option<String>, String> {
        let recorded = self.context.bus.recorded(subject).await.map_err(|error| error.to_string())?;
        Ok(recorded.and_then(|body| decode(&body).err()).map(|error| error.to_string()))
    }

    /// Says whether the turn still runs.
    async fn begin(&self, turn: &RunningTurn) -> Result<bool, String> {
        let opening =
            self.context.store.opening(&turn.workflow_id).await.map_err(|error| error.to_string())?;
        // None: it has ended meanwhile.
        if opening.is_none() {
            return Ok(false);
        }
        log_resumed(turn, StageName::Input);
        // A beginning that this version cannot read, for one, must not keep the sweep from the turns behind it.
        if let Err(why) = done(self.begin_behind_the_last(turn, opening).await) {
            tracing::warn!(workflow = %turn.workflow_id, why, "a turn cannot be begun here");
        }
        Ok(true)
    }

    async fn begin_behind_the_last(&self, turn: &RunningTurn, opening: Option<Opening>) -> Outcome {
        let place = (turn.session_id.clone(), turn.input_sequence);
        let missing = match missing_end::before(&self.context, &[place]).await {
            Ok(missing) => missing,
            Err(away) => return away,
        };
        for ended in missing.values() {
            if let Err(outcome) = missing_end::publish_end(&self.context, &turn.session_id, ended).await {
                return outcome;
            }
        }
        self.context.release(opening).await
    }

    async fn runs(&self, turn: &RunningTurn) -> Result<bool, String> {
        let opening = self.context.store.opening(&turn.workflow_id).await;
        opening.map(|opening| opening.is_some()).map_err(|error| error.to_string())
    }
}

fn log_resumed(turn: &RunningTurn, stage: StageName) {
    metrics::resumed(stage);
    tracing::warn!(workflow = %turn.workflow_id, %stage, since = %turn.started_at, "no worker worked on a turn; resumed");
}

fn done(outcome: Outcome) -> Result<(), String> {
    match outcome {
        // Then another one goes on with it.
        Outcome::Done | Outcome::TakenOver => Ok(()),
        Outcome::Later { reason, .. } | Outcome::Died { reason, .. } => Err(reason),
        Outcome::Unusable { error, .. } => Err(error),
    }
}
