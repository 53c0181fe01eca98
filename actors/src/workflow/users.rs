//! What one user may take of a worker: its share of the turns that run, and how many turns it may have open.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    policy::share::{LogRoom, share, within},
    ports::store::{Share, UserLimits},
};

/// How many turns of one user may run at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunningLimit {
    /// As many as there is room for, while others do not want it ([`crate::policy::share`]).
    #[default]
    Shared,
    /// So many, whatever others want.
    Fixed(NonZeroU32),
    /// Any number, and nothing is counted.
    Unlimited,
}

/// What users may take.
#[derive(Debug, Clone, Default)]
pub struct UserSettings {
    /// Of the turns that run.
    pub running: RunningLimit,
    /// How many turns of one user may be open; `None`: any number.
    pub open: Option<NonZeroU32>,
    /// What there is to share.
    pub calls: Calls,
}

/// How many calls of models all workers of the namespace can make at once. Clones share it: it is set
/// when another worker is seen.
#[derive(Debug, Clone)]
pub struct Calls(Arc<AtomicU32>);

impl Calls {
    /// So many, as far as is known.
    pub fn new(calls: u32) -> Self {
        Self(Arc::new(AtomicU32::new(calls)))
    }

    /// It is known better now.
    pub fn set(&self, calls: u32) {
        self.0.store(calls, Ordering::Relaxed);
    }

    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Calls {
    /// What one worker has by default in tests and replays: 64.
    fn default() -> Self {
        Self::new(64)
    }
}

/// The settings at work, shared by admission, starter and retention. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Users {
    settings: UserSettings,
    lately: Arc<AtomicU32>,
    room: Arc<Mutex<Option<LogRoom>>>,
    noticed: Arc<Notify>,
}

impl Users {
    /// As the settings say.
    pub fn new(settings: UserSettings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// The limits as they are at this moment.
    pub fn limits(&self) -> UserLimits {
        UserLimits { share: self.share(), open: self.settings.open }
    }

    /// The share as it is at this moment; `None` if there is none.
    pub(crate) fn share(&self) -> Option<Share> {
        let share = match self.settings.running {
            RunningLimit::Shared => {
                Some(share(self.settings.calls.get(), self.lately.load(Ordering::Relaxed)))
            }
            RunningLimit::Fixed(each) => Some(Share::fixed(each)),
            RunningLimit::Unlimited => None,
        };
        within(share, *self.room())
    }

    /// The log has room for so many turns; `None`: for any number, or that is not known. What was known before.
    pub(crate) fn set_room(&self, room: Option<LogRoom>) -> Option<LogRoom> {
        std::mem::replace(&mut *self.room(), room)
    }

    fn room(&self) -> MutexGuard<'_, Option<LogRoom>> {
        // Nothing panics while holding the lock.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many turns were started lately.
    pub(crate) fn started(&self, lately: u32) {
        self.lately.store(lately, Ordering::Relaxed);
    }

    /// A turn was held.
    pub(crate) fn held(&self) {
        self.noticed.notify_one();
    }

    /// Completes when a turn was held, also if that was before.
    pub(crate) async fn until_held(&self) {
        self.noticed.notified().await;
    }
}
