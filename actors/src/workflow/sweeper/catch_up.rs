//! When the database is compared with the log, beside the sweeps.

use std::{collections::VecDeque, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    ports::store::Mark,
    workflow::{
        repair::{Repaired, repair},
        stage_context::StageContext,
    },
};

/// Every so many sweeps the mark follows the end of the log also if no turn was seen.
const IDLE_SWEEPS_TO_A_MARK: u32 = 30;

/// The mark stays that far behind the end of the log: a replica that takes over lacks what was committed last, and its mark
/// must not be beyond that.
const MARK_LAGS: Duration = Duration::from_mins(1);

/// See the module's documentation. Dropping it ends what it does.
#[derive(Default)]
pub(super) struct CatchUp {
    /// The database's mark as it was last seen: one that is behind it has gone back, with the whole database.
    mark: Option<Mark>,
    /// Ends of the log, and when they were; the oldest first.
    ends: VecDeque<(Instant, u64)>,
    idle: u32,
    running: JoinSet<Result<Repaired, String>>,
}

impl CatchUp {
    /// Begins to compare if there is a reason to; else moves the mark along, if turns were seen. The error says why it
    /// could not.
    pub(super) async fn step(&mut self, context: &StageContext, has_seen_turns: bool) -> Result<(), String> {
        while let Some(ended) = self.running.try_join_next() {
            match ended {
                Ok(Ok(repaired)) => tracing::debug!(?repaired, "the database was compared with the log"),
                // From the mark on, again.
                Ok(Err(why)) => {
                    tracing::debug!(why, "the database could not be compared with the log");
                    self.mark = None;
                }
                Err(error) => {
                    tracing::error!(%error, "comparing the database with the log panicked");
                    self.mark = None;
                }
            }
        }
        if !self.running.is_empty() {
            return Ok(());
        }
        let mark = context.store.mark().await.map_err(|error| error.to_string())?;
        let goes_on = |seen: &Mark| mark.sequence >= seen.sequence && mark.server == seen.server;
        if !self.mark.as_ref().is_some_and(goes_on) {
            let from = mark.sequence;
            self.mark = Some(mark);
            self.ends.clear();
            let context = context.clone();
            self.running.spawn(async move { repair(&context, from).await });
            return Ok(());
        }
        self.idle += 1;
        if has_seen_turns || self.idle >= IDLE_SWEEPS_TO_A_MARK {
            self.idle = 0;
            let last = context.bus.position().await.map_err(|error| error.to_string())?.last;
            self.ends.push_back((Instant::now(), last));
        }
        let old = |(at, _): &(Instant, u64)| at.elapsed() >= MARK_LAGS;
        let mut to = None;
        while self.ends.front().is_some_and(old) {
            to = self.ends.pop_front().map(|(_, last)| last);
        }
        // What was published up to there was committed before. Should the database go back just now, the mark is another
        // one by then, and stays.
        if let Some(to) = to {
            context.store.set_mark(mark.sequence, to).await.map_err(|error| error.to_string())?;
        }
        self.mark = Some(mark);
        Ok(())
    }
}
