//! Keeps room in the log: finished work is removed before input would be refused, or when it is old enough; rows and
//! archives that are old enough go, too. Nothing that is open is ever removed (`policy/retention.rs` says why that holds
//! while everything goes on).
//!
//! Runs in each process that admits. Several do no harm, and one of them is enough (`turn.rs`).

mod pace;
mod turn;

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use throughline_schemas::Timestamp;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    metrics,
    policy::{
        retention::{
            AGE_SLACK, BEGIN_PERCENT, FULL_PERCENT, Floor, Holder, JUST_FINISHED, URGENT_PERCENT,
            bodies_percent, floor, for_open_work, for_room, percent, settled, share, surplus_bodies,
            turns_with_room, until,
        },
        share::LogRoom,
    },
    ports::{
        archive::Archived,
        bus::DeliveryState,
        clock::Entropy,
        log::{Fill, Keeper, Purge},
        store::Store,
    },
    workflow::users::Users,
};
use pace::Pace;
use turn::Turn;

/// Longest time between two looks at the log.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Longest one while finished work has to go, and before the second look.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// Shortest one, while the log fills fast or is nearly full.
const SHORTEST_WAIT: Duration = Duration::from_millis(250);
/// A log that has not changed is looked at as a whole this often: its age, and the streams beside it.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);
/// Looks from now until removing begins, at the present growth.
const LOOKS_BEFORE: u32 = 4;
/// Rows and archives are looked at so often.
const HOUSEKEEPING: Duration = Duration::from_hours(1);
/// Messages that are archived and removed at once, in about a second: their room is needed.
const REMOVE_AT_ONCE: u64 = 4_000;
/// Turns that are forgotten in one transaction.
const FORGET_AT_ONCE: usize = 500;
/// Such transactions between two looks at the log; the rest waits for the next one.
const FORGET_ROUNDS: usize = 20;
/// What keeps the log full is reported again after this time.
const TELL_AGAIN: Duration = Duration::from_mins(10);
/// A forecast below this is worth a warning if removing finished work does not help.
const SOON: Duration = Duration::from_hours(24);

/// How long things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Events of finished work. They go earlier when the log is nearly full.
    pub events: Duration,
    /// Rows of ended turns, and with them the memory of their ids; `None`: for ever.
    pub interactions: Option<Duration>,
    /// Archives; `None`: for ever.
    pub archives: Option<Duration>,
}

impl Default for RetentionSettings {
    /// Seven days; a year; for ever.
    fn default() -> Self {
        Self {
            events: Duration::from_hours(7 * 24),
            interactions: Some(Duration::from_hours(365 * 24)),
            archives: None,
        }
    }
}

/// What keeping room needs.
#[derive(Clone)]
pub struct RetentionArgs {
    /// The log and its archive.
    pub keeper: Keeper,
    /// Knows whose turn it is.
    pub bus: Arc<dyn DeliveryState>,
    /// Knows what is open.
    pub store: Arc<dyn Store>,
    /// How long things are kept.
    pub settings: RetentionSettings,
    /// Learn how many turns the log has room for.
    pub(crate) users: Users,
    /// For jitter, and to distinguish processes.
    pub entropy: Arc<dyn Entropy>,
}

/// See the module's documentation.
pub struct Retention;

/// Time for the next look.
pub struct Look;

/// Private state.
pub struct RetentionState {
    args: RetentionArgs,
    known: Known,
}

/// What this process knows from earlier looks.
#[derive(Default)]
struct Known {
    turn: Turn,
    seen: Seen,
    /// What went wrong last, and when that was logged.
    failed: Option<(String, Instant)>,
}

/// What earlier looks found.
#[derive(Default)]
struct Seen {
    pace: Pace,
    /// The stages' positions at the last look.
    settled: Option<Floor>,
    /// When rows and archives were last looked at, and all that was old had gone.
    housekept: Option<Instant>,
    /// What was last reported to keep the log full, and when.
    told: Option<(Floor, Instant)>,
    /// The end of the log when nothing of it had to go, and when that was.
    at_rest: Option<(u64, Instant)>,
    wait: Duration,
}

/// What one look found.
struct Found {
    fill: Fill,
    /// Bytes a second.
    growth: f64,
    floor: Floor,
    /// This process has the turn.
    is_ours: bool,
}

impl Actor for Retention {
    type Msg = Look;
    type State = RetentionState;
    type Arguments = RetentionArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Look>,
        args: RetentionArgs,
    ) -> Result<RetentionState, ActorProcessingErr> {
        let wait = args.jittered(SHORT_WAIT);
        drop(myself.send_after(wait, || Look));
        Ok(RetentionState { args, known: Known::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Look>,
        Look: Look,
        state: &mut RetentionState,
    ) -> Result<(), ActorProcessingErr> {
        // In a task of its own, so that a panic ends that look and not the looking. It ends with this actor.
        let mut task = JoinSet::new();
        let (args, mut known) = (state.args.clone(), std::mem::take(&mut state.known));
        task.spawn(async move {
            let looked = args.look(&mut known).await;
            (looked, known)
        });
        let mut wait = LONGEST_WAIT;
        match task.join_next().await {
            Some(Ok((looked, known))) => {
                wait = known.seen.wait;
                state.known = known;
                state.known.log_failure(looked.err());
            }
            Some(Err(error)) => tracing::error!(%error, "keeping room in the event log panicked"),
            None => {}
        }
        // It ends with its actor, so nothing else keeps a handle.
        drop(myself.send_after(state.args.jittered(wait), || Look));
        Ok(())
    }
}

impl Known {
    /// Says what went wrong, once in a while.
    fn log_failure(&mut self, failed: Option<String>) {
        metrics::retention_failing(failed.is_some());
        let Some(why) = failed else {
            self.failed = None;
            return;
        };
        if self.failed.as_ref().is_some_and(|(told, at)| *told == why && at.elapsed() < TELL_AGAIN) {
            return;
        }
        tracing::warn!(why, "old events, rows or archives cannot be removed now; trying again");
        self.failed = Some((why, Instant::now()));
    }
}

impl RetentionArgs {
    /// Up to a quarter longer, so that processes that started together do not look together.
    fn jittered(&self, wait: Duration) -> Duration {
        let quarter = u64::try_from(wait.as_millis() / 4).unwrap_or(u64::MAX);
        wait + Duration::from_millis(self.entropy.next_u64() % quarter.max(1))
    }

    /// The error says why it ended early.
    async fn look(&self, known: &mut Known) -> Result<(), String> {
        let Known { turn, seen, .. } = known;
        seen.wait = LONGEST_WAIT;
        if self.is_at_rest(seen).await? {
            return Ok(());
        }
        // The stages before the database: see `policy::retention::floor`.
        let fill = self.keeper.log.fill().await.map_err(|error| with_causes(&error))?;
        let growth = seen.pace.look(&fill);
        let now = settled(&fill);
        let earlier = seen.settled.replace(now);
        let open = self.store.oldest_open().await.map_err(|error| error.to_string())?;
        seen.wait = wait(&fill, growth);
        metrics::log_fill(&fill, growth, open);
        let is_ours =
            turn.take(self.bus.as_ref(), self.entropy.as_ref()).await.map_err(|error| with_causes(&error))?;
        let Some(earlier) = earlier else {
            // One look knows too little.
            seen.wait = SHORT_WAIT;
            return Ok(());
        };
        let is_roomy = for_room(&fill).is_none() && surplus_bodies(&fill).is_none();
        let quiet = is_roomy.then(|| (fill.last, Instant::now()));
        let floor = floor(earlier, now, open);
        self.report_room(&fill, floor).await?;
        let found = Found { fill, growth, floor, is_ours };
        let work = async {
            self.act(found, seen).await?;
            seen.at_rest = quiet.filter(|_| seen.wait == LONGEST_WAIT);
            Ok::<(), String>(())
        };
        tokio::pin!(work);
        let mut said = Instant::now();
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(SHORTEST_WAIT) => {
                    // Archiving takes as long as it takes, and the log may fill meanwhile.
                    if let Err(error) = self.look_at_room(floor).await {
                        tracing::debug!(error, "how full the log is cannot be seen");
                    }
                    if is_ours && said.elapsed() >= turn::SAY_AGAIN {
                        said = Instant::now();
                        if let Err(error) = turn.take(self.bus.as_ref(), self.entropy.as_ref()).await {
                            tracing::debug!(%error, "the turn at keeping room in the log cannot be kept");
                        }
                    }
                }
            }
        }
    }

    /// Whether nothing has been stored since nothing had to go, so that nothing has to go now: an idle process asks no
    /// more.
    async fn is_at_rest(&self, seen: &mut Seen) -> Result<bool, String> {
        let Some((last, _)) = seen.at_rest.filter(|(_, at)| at.elapsed() < LOOK_ANYWAY) else {
            return Ok(false);
        };
        let is_at_rest = self.keeper.log.last().await.map_err(|error| with_causes(&error))? == last;
        if !is_at_rest {
            seen.at_rest = None;
        }
        Ok(is_at_rest)
    }

    async fn act(&self, mut found: Found, seen: &mut Seen) -> Result<(), String> {
        let percent = percent(&found.fill).max(bodies_percent(&found.fill));
        let is_urgent = percent >= URGENT_PERCENT;
        let mut wanted = for_room(&found.fill);
        // The process that has the turn may have died: there is no time to wait for that in a log that is about to refuse
        // input. Two archives of the same messages are better than none.
        if found.is_ours || percent >= FULL_PERCENT {
            wanted = wanted.max(self.release_bodies(&found.fill).await?);
            let surplus = for_open_work(&found.fill, found.floor).filter(|_| found.is_ours);
            if self.make_room(&mut found.fill, found.floor, wanted, is_urgent).await? {
                seen.wait = seen.wait.min(SHORT_WAIT);
            }
            if let Some(surplus) = surplus {
                self.thin_out(&found.fill, found.floor, surplus).await?;
            }
        }
        self.report_what_holds(&found, wanted, seen).await?;
        if found.is_ours { self.keep_house(&found.fill, seen).await } else { Ok(()) }
    }

    /// Looks how full the log is while something is being done about it.
    async fn look_at_room(&self, floor: Floor) -> Result<(), String> {
        let fill = self.keeper.log.fill().await.map_err(|error| with_causes(&error))?;
        self.report_room(&fill, floor).await
    }

    /// Tells those who begin turns how many the log has room for.
    async fn report_room(&self, fill: &Fill, floor: Floor) -> Result<(), String> {
        let open = self.store.open_turns().await.map_err(|error| error.to_string())?;
        let running = u32::try_from(open.running.turns).unwrap_or(u32::MAX);
        let room = turns_with_room(fill, floor).map(|turns| LogRoom { turns, running });
        let was_short = self.users.set_room(room).is_some_and(LogRoom::is_short);
        let is_short = room.is_some_and(LogRoom::is_short);
        metrics::log_short_of_room(is_short);
        if was_short == is_short {
            return Ok(());
        }
        let percent = percent(fill);
        let turns = room.map_or(0, |room| room.turns);
        if is_short {
            tracing::warn!(
                percent,
                running,
                turns,
                "the event log has room for so many turns; new ones wait until some have ended. Raise nats.max_bytes_mib and run \
                 `throughline setup` if more should run"
            );
        } else {
            tracing::info!(percent, running, turns, "the event log has room for new turns again");
        }
        Ok(())
    }

    /// Removes large bodies that nothing names, if their store is nearly full. Where the log has to begin for the rest.
    async fn release_bodies(&self, fill: &Fill) -> Result<Option<u64>, String> {
        let Some(surplus) = surplus_bodies(fill) else { return Ok(None) };
        let released = self.keeper.log.release_bodies(surplus).await.map_err(|error| with_causes(&error))?;
        if released.bodies > 0 {
            metrics::released(released.bodies);
            tracing::info!(
                removed = released.bodies,
                bytes = released.bytes,
                percent = bodies_percent(fill),
                "large bodies of finished work were removed"
            );
        }
        Ok(released.needs_log_from)
    }

    /// Removes finished work if there is reason to. Whether anything was removed.
    async fn make_room(
        &self,
        fill: &mut Fill,
        floor: Floor,
        mut wanted: Option<u64>,
        is_urgent: bool,
    ) -> Result<bool, String> {
        let log = &self.keeper.log;
        if log
            .age_at(fill.first)
            .await
            .map_err(|error| with_causes(&error))?
            .is_some_and(|age| age > self.settings.events + AGE_SLACK)
        {
            let young = log.first_within(self.settings.events).await.map_err(|error| with_causes(&error))?;
            wanted = wanted.max(Some(young));
        }
        let Some(wanted) = wanted else { return Ok(false) };
        let mut before = wanted.min(floor.before);
        if !is_urgent && before > fill.first {
            // A process that stood still for a moment finds what became of its work, and an unpublished end what it is made
            // of.
            before = before.min(log.first_within(JUST_FINISHED).await.map_err(|error| with_causes(&error))?);
        }
        let removes = before > fill.first;
        while fill.first < before {
            self.remove_before(fill, before.min(fill.first + REMOVE_AT_ONCE)).await?;
        }
        Ok(removes)
    }

    /// Removes the beginning of the log, which is archived first if archives are kept.
    async fn remove_before(&self, fill: &mut Fill, before: u64) -> Result<(), String> {
        let archived = self.archived(fill.first, before).await?;
        let name = archived.as_ref().map(|archived| archived.name.clone());
        let purge = Purge { before, at: fill.now, archive: name.clone() };
        let removed = self.keeper.log.purge(&purge).await.map_err(|error| with_causes(&error))?;
        metrics::purged(removed, archived.map_or(0, |archived| archived.messages));
        tracing::info!(
            removed,
            from = fill.first,
            before,
            percent = percent(fill),
            archive = name.unwrap_or_default(),
            "finished work was removed from the event log"
        );
        fill.first = before;
        Ok(())
    }

    /// Keeps a part of the log in an archive, if archives are kept.
    async fn archived(&self, first: u64, before: u64) -> Result<Option<Archived>, String> {
        match &self.keeper.archive {
            Some(archive) => {
                Ok(Some(archive.keep(first, before).await.map_err(|error| with_causes(&error))?))
            }
            None => Ok(None),
        }
    }

    /// Removes results of finished work, and its ends after a while, from behind what is still needed: about as many bytes.
    async fn thin_out(&self, fill: &Fill, floor: Floor, bytes: u64) -> Result<(), String> {
        let log = &self.keeper.log;
        let finished = log.finished_from(floor.before, bytes, ago(fill.now, JUST_FINISHED)).await;
        let finished = finished.map_err(|error| with_causes(&error))?;
        let Some(last) = finished.last() else { return Ok(()) };
        // With what stays, which a later archive has again: each archive is whole in itself.
        let archived = self.archived(floor.before, last + 1).await?;
        let removed = log.remove(&finished).await.map_err(|error| with_causes(&error))?;
        metrics::purged(removed, archived.as_ref().map_or(0, |archived| archived.messages));
        tracing::warn!(
            removed,
            from = floor.before,
            percent = percent(fill),
            archive = archived.map(|archived| archived.name).unwrap_or_default(),
            "the event log is full, and a message that is still needed keeps what is behind it; results of finished work were \
             removed from there, and ends that are not new"
        );
        Ok(())
    }

    /// Says what keeps a log full, or the store of large bodies, that has nothing to give.
    async fn report_what_holds(
        &self,
        found: &Found,
        wanted: Option<u64>,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let Found { fill, floor, growth, .. } = found;
        let Some(wanted) = wanted.filter(|wanted| *wanted > floor.before) else {
            seen.told = None;
            metrics::log_held(None);
            return Ok(());
        };
        // How fast bodies come is not known: a store of them that is nearly full is reported at once.
        let left = match surplus_bodies(fill) {
            Some(_) => Some(Duration::ZERO),
            None => fill.max_bytes.and_then(|max| until(fill.bytes, max, *growth)),
        };
        let age = self.keeper.log.age_at(floor.before).await.map_err(|error| with_causes(&error))?;
        metrics::log_held(age);
        let is_known = seen.told.is_some_and(|(told, at)| told == *floor && at.elapsed() < TELL_AGAIN);
        if is_known || left.is_none_or(|left| left > SOON) {
            return Ok(());
        }
        seen.told = Some((*floor, Instant::now()));
        let holder = match floor.held_by {
            Some(Holder::Turn) => "an open turn began with it".to_owned(),
            Some(Holder::Stage(stage)) => format!("the stage {stage} has not settled it"),
            None => "it is the end of the log".to_owned(),
        };
        tracing::warn!(
            percent = percent(fill),
            bodies_percent = bodies_percent(fill),
            sequence = floor.before,
            wanted,
            holder,
            stored_for_s = age.map_or(0, |age| age.as_secs()),
            refuses_input_in_s = left.map_or(0, |left| left.as_secs()),
            "the event log or the store of large bodies fills, and what is in it is not finished: a message that is still \
             needed keeps everything behind it; raise nats.max_bytes_mib and run `throughline setup`, or see to that message"
        );
        Ok(())
    }

    /// Rows and archives that are old enough.
    async fn keep_house(&self, fill: &Fill, seen: &mut Seen) -> Result<(), String> {
        if seen.housekept.is_some_and(|at| at.elapsed() < HOUSEKEEPING) {
            return Ok(());
        }
        if let Some(age) = self.settings.interactions {
            // A turn is remembered at least for as long as the log has anything of it.
            let oldest = self
                .keeper
                .log
                .age_at(fill.first)
                .await
                .map_err(|error| with_causes(&error))?
                .unwrap_or_default();
            let ended_before = ago(fill.now, age.max(oldest));
            let mut rounds = 0..FORGET_ROUNDS;
            loop {
                if rounds.next().is_none() {
                    // Not all; the next look goes on.
                    return Ok(());
                }
                let forgotten = self.store.forget_ended(ended_before, FORGET_AT_ONCE).await;
                let forgotten = forgotten.map_err(|error| error.to_string())?;
                metrics::forgotten(forgotten);
                if usize::try_from(forgotten).unwrap_or(usize::MAX) < FORGET_AT_ONCE {
                    break;
                }
            }
        }
        if let (Some(archive), Some(age)) = (&self.keeper.archive, self.settings.archives) {
            let removed = archive.forget(ago(fill.now, age)).await.map_err(|error| with_causes(&error))?;
            if removed > 0 {
                tracing::info!(removed, "archives that were old enough were removed");
            }
        }
        seen.housekept = Some(Instant::now());
        Ok(())
    }
}

/// When to look again: in time before the log is so full that something must go.
fn wait(fill: &Fill, growth: f64) -> Duration {
    if surplus_bodies(fill).is_some() {
        return SHORT_WAIT;
    }
    let Some(max) = fill.max_bytes else { return LONGEST_WAIT };
    let (next, longest) = if percent(fill) >= BEGIN_PERCENT {
        (URGENT_PERCENT, SHORT_WAIT)
    } else {
        (BEGIN_PERCENT, LONGEST_WAIT)
    };
    until(fill.bytes, share(max, next, 100), growth)
        .map_or(longest, |left| (left / LOOKS_BEFORE).clamp(SHORTEST_WAIT, longest))
}

fn ago(now: Timestamp, age: Duration) -> Timestamp {
    let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(now.unix_ms().saturating_sub(ms))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        words.push_str(": ");
        words.push_str(&below.to_string());
        source = below.source();
    }
    words
}
