//! The starter: starts turns that are held because their users had their share of what runs.
//!
//! It looks every [`PAUSE`] while turns are known to be held, and else as rarely as is swept: admission notifies it of the
//! first. Several may run, since the database decides what each of them starts. What one started and did not publish,
//! because it died or the log was away, is begun by the sweeper like any turn on which no worker works.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use throughline_schemas::UserId;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    metrics,
    policy::{
        merge,
        settle::Outcome,
        share::{PAUSE, RATE_WINDOW},
    },
    ports::store::{HeldQuery, HeldStarted, Opening},
    workflow::{
        missing_end,
        owned_task::{self, Ended},
        stage_context::StageContext,
        users::Users,
    },
};

/// Longest pause while turns are held and none can be started: a model that is away for an hour is no reason to ask the
/// database all the time.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Turns started with one look. They are published at the same time.
const MOST: usize = 64;
/// After so many it looks again at once: there may be more room. (A store may start fewer than it is asked for.)
const MANY: usize = 48;
/// It goes on looking that long after the last turn was held: others may hold turns while it believes that there are none.
const LINGER: Duration = Duration::from_secs(1);
/// Before it looks again when the database did not answer.
const WAIT_AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// What a starter needs.
#[derive(Clone)]
pub struct StarterArgs {
    /// Publishes; knows bus and database.
    pub context: StageContext,
    /// Shares, and word of turns that are held.
    pub users: Users,
    /// Between two looks while no turn is known to be held.
    pub idle: Duration,
}

/// See the module's documentation.
pub struct Starter;

/// The starter cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("starting held turns ended")]
struct NothingStarts;

impl Actor for Starter {
    type Msg = Ended;
    /// Ends with the actor.
    type State = JoinSet<()>;
    type Arguments = StarterArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Ended>,
        args: StarterArgs,
    ) -> Result<JoinSet<()>, ActorProcessingErr> {
        Ok(owned_task::start(myself, go_on(Arc::new(args))))
    }

    async fn handle(
        &self,
        _: ActorRef<Ended>,
        Ended: Ended,
        _: &mut JoinSet<()>,
    ) -> Result<(), ActorProcessingErr> {
        Err(NothingStarts.into())
    }
}

async fn go_on(args: Arc<StarterArgs>) {
    let mut progress = Progress::default();
    loop {
        // In a task of its own, so that a panic ends that look and not the looking.
        let mut look = JoinSet::new();
        let (began, mut seen) = (Instant::now(), std::mem::take(&mut progress));
        let looking = Arc::clone(&args);
        look.spawn(async move {
            let wait = looking.look(&mut seen).await;
            (seen, wait)
        });
        let wait = match look.join_next().await {
            Some(Ok((seen, wait))) => {
                progress = seen;
                wait
            }
            Some(Err(error)) => {
                tracing::error!(%error, "starting held turns panicked");
                Wait::Failed
            }
            None => Wait::Failed,
        };
        match wait {
            Wait::Short(pause) => sleep(pause.saturating_sub(began.elapsed())).await,
            Wait::Failed => sleep(WAIT_AFTER_AN_ERROR).await,
            Wait::Long => {
                tokio::select! {
                    () = sleep(args.idle) => {}
                    () = args.users.until_held() => sleep(PAUSE).await,
                }
            }
        }
    }
}

/// Before the next look.
enum Wait {
    Short(Duration),
    Long,
    Failed,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Progress {
    /// The last user that was looked at, if there are further ones.
    behind: Option<UserId>,
    /// When turns were last known to be held.
    held_at: Option<Instant>,
    /// Doubles from [`PAUSE`] while nothing can be started.
    pause: Duration,
    /// How many turns were started when.
    started: VecDeque<(Instant, usize)>,
}

impl Progress {
    /// Turns that were started within [`RATE_WINDOW`].
    fn lately(&mut self, now: Instant) -> u32 {
        while self.started.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.started.pop_front();
        }
        let lately = self.started.iter().map(|(_, turns)| turns).sum::<usize>();
        u32::try_from(lately).unwrap_or(u32::MAX)
    }
}

impl StarterArgs {
    async fn look(&self, progress: &mut Progress) -> Wait {
        let query = HeldQuery {
            share: self.users.share(),
            behind: progress.behind.take(),
            most: MOST,
            at: self.context.clock.now(),
        };
        let HeldStarted { openings, behind, left } = match self.context.store.start_held(query).await {
            Ok(started) => started,
            Err(error) => {
                // Reported by the code that needs the database for work.
                tracing::debug!(%error, "held turns were not started");
                return Wait::Failed;
            }
        };
        let now = Instant::now();
        progress.behind = behind;
        if left || !openings.is_empty() {
            progress.held_at = Some(now);
        }
        progress.pause = (progress.pause * 2).clamp(PAUSE, LONGEST_PAUSE);
        if !openings.is_empty() {
            progress.pause = if openings.len() < MANY { PAUSE } else { Duration::ZERO };
            progress.started.push_back((now, openings.len()));
            metrics::held_started(openings.len());
        }
        self.users.started(progress.lately(now));
        self.begin(&openings).await;
        match progress.held_at {
            Some(at) if now.duration_since(at) < LINGER => Wait::Short(progress.pause),
            Some(_) | None => Wait::Long,
        }
    }

    /// Publishes what turns begin with, each behind the end of the turn before it in its session.
    async fn begin(&self, openings: &[Opening]) {
        let opened = openings.iter().filter_map(|opening| {
            let (event, sequence) = merge::opened(opening).ok()?;
            Some((event.meta.session_id, sequence))
        });
        let places: Vec<_> = opened.collect();
        let missing = match missing_end::before(&self.context, &places).await {
            Ok(missing) => missing,
            Err(away) => return log_failure(&away),
        };
        for (session, sequence) in &places {
            if let Some(ended) = missing.get(sequence)
                && let Err(outcome) = missing_end::publish_end(&self.context, session, ended).await
            {
                log_failure(&outcome);
            }
        }
        let released = openings.iter().map(|opening| self.context.release(Some(opening.clone())));
        for outcome in join_all(released).await {
            log_failure(&outcome);
        }
    }
}

/// The sweeper begins what could not be begun.
fn log_failure(outcome: &Outcome) {
    match outcome {
        Outcome::Done | Outcome::TakenOver => {}
        Outcome::Later { reason, .. } | Outcome::Died { reason, .. } => {
            tracing::warn!(reason, "a turn that was held is begun later");
        }
        Outcome::Unusable { error, .. } => tracing::warn!(error, "a turn that was held is begun later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_started_long_ago_does_not_count() {
        let mut progress = Progress::default();
        let began = Instant::now();
        for n in 0..10 {
            progress.started.push_back((began + RATE_WINDOW / 5 * n, 7));
        }
        assert_eq!(progress.lately(began + RATE_WINDOW / 5 * 9), 42, "six looks within the window");
        assert_eq!(progress.lately(began + RATE_WINDOW * 9), 0);
    }
}
