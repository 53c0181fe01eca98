//! Signs of life of a worker, and the same comparison again and again while it runs.

use std::{sync::Arc, time::Duration};

use throughline_actors::workflow::users::Calls;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use super::check_in::{CheckInError, CheckedIn, compare};
use crate::{
    bus::nats::NatsBus,
    storage::{Database, namespaces::WORKER_COUNTS_FOR},
};

/// Between two signs of life: a worker that is alive counts, even if some of them fail.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// Signs of life during which a worker of another log must be seen before this one ends: workers learn one after the
/// other that their log was wiped and has another name.
const STRANGE_BEATS: u32 = 3;
/// How long saying goodbye may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

const _: () = assert!(BEAT_EVERY.as_secs() * 3 < WORKER_COUNTS_FOR.as_secs());

/// Keeps a worker checked in. Dropping it ends that.
pub struct Keeper {
    checked_in: CheckedIn,
    store: Arc<Database>,
    refusal: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Begins. What all workers together can do is told to `calls`.
    pub fn start(bus: Arc<NatsBus>, store: Arc<Database>, checked_in: CheckedIn, calls: Calls) -> Self {
        let (refuse, refusal) = watch::channel(None);
        let (mut kept, keeping) = (checked_in.clone(), Arc::clone(&store));
        let task = tokio::spawn(async move {
            let mut beats = interval(BEAT_EVERY);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut strange = 0;
            loop {
                beats.tick().await;
                match look(&bus, &keeping, &mut kept, &mut strange, &calls).await {
                    Ok(()) => {}
                    // Both are waited for where they are needed.
                    Err(error) if error.is_unavailable() => {
                        tracing::debug!(%error, "log and database could not be compared");
                    }
                    Err(error) => {
                        tracing::error!(%error, "this database is not the namespace's any more");
                        refuse.send_replace(Some(error.to_string()));
                        return;
                    }
                }
            }
        });
        Self { checked_in, store, refusal, task }
    }

    /// Why this worker must not go on, as soon as that is known.
    pub fn refusal(&self) -> watch::Receiver<Option<String>> {
        self.refusal.clone()
    }

    /// Completes when this worker must not go on, and says why.
    pub async fn ended(&mut self) -> String {
        // The sender ends with the task, which has an end only then, or when it panicked.
        let told = self.refusal.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        told.unwrap_or_else(|| "the task that compares log and database ended".to_owned())
    }

    /// Says that this worker does not use the database any more, within a limit.
    pub async fn leave(self) {
        self.task.abort();
        let leaving = self.store.leave(&self.checked_in.namespace, &self.checked_in.beat.worker);
        match timeout(LEAVE_LIMIT, leaving).await {
            Ok(Ok(())) => {}
            // It is forgotten a minute later by itself.
            Ok(Err(error)) => tracing::debug!(%error, "a worker that stops could not be signed off"),
            Err(_) => tracing::debug!(limit = ?LEAVE_LIMIT, "a worker that stops could not be signed off"),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One sign of life and one comparison. `strange` counts how often another log was seen in a row.
async fn look(
    bus: &NatsBus,
    store: &Database,
    kept: &mut CheckedIn,
    strange: &mut u32,
    calls: &Calls,
) -> Result<(), CheckInError> {
    // A log that was wiped has another name.
    kept.beat.log = compare(bus, store, &kept.place, false).await?.log;
    let stranger = kept.stranger(store).await?;
    match store.calls(&kept.namespace, &kept.beat.log, kept.beat.calls).await? {
        // No worker asks models, so nothing is known of how much they can do.
        0 => {}
        all => calls.set(all),
    }
    match stranger {
        None => *strange = 0,
        Some(stranger) => {
            *strange += 1;
            if *strange >= STRANGE_BEATS {
                return Err(kept.other_log(&stranger));
            }
        }
    }
    Ok(())
}
