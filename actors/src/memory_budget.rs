//! Memory for messages in hand: one budget for a process.
//!
//! A delivery takes its share before its body is fetched and read, waits until there is room, and gives it back when its
//! work is done. It never waits for more while it holds something, so deliveries never wait for each other. A share can be
//! shrunk, never grown: who finds that more is needed gives the first share back and takes one that has room for
//! everything.
//!
//! Three quarters of the budget are for large shares and one is for small ones, so that a message of some hundred kilobytes
//! does not stand behind those of many megabytes. Small ones may also have what no large one waits for. In each part
//! everybody is served in turn. A share that is larger than its part is cut to all of it: it is alone there.

use std::{
    collections::BTreeMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use throughline_schemas::StageName;
use tokio::{
    sync::{Notify, OnceCell, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    metrics,
    policy::{
        limits::{MEMORY_LONG_WAIT, MEMORY_PATIENCE, MEMORY_RETRY_DELAY, MEMORY_WAITS},
        memory::largest_share,
        settle::Outcome,
    },
};

/// Bytes in one unit of the budget.
const UNIT: u64 = 1024;
/// The budget of a process that needs none, in units: more than any machine has.
const UNBOUNDED: u32 = u32::MAX / 2;
/// Least budget, in units: with less, every share would be cut.
const LEAST: u32 = 1024;
/// So many small shares fit into their part, at least.
const SMALL_SHARES: u32 = 16;

/// The budget of a process. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    small: Part,
    large: Part,
    waiting: Mutex<Waiting>,
}

/// A part of the budget.
struct Part {
    units: u32,
    free: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    /// Since when, by the number of the wait.
    since: BTreeMap<u64, Instant>,
    next: u64,
    /// A long wait has been logged.
    is_reported: bool,
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    /// All of it, in bytes.
    pub budget: u64,
    /// What messages in hand have taken or are about to take, in bytes.
    pub reserved: u64,
    /// Deliveries that wait for room.
    pub waiting: usize,
    /// How long the one that waits longest has waited.
    pub longest_wait: Duration,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// The process stops.
    Stopping,
    /// As many deliveries of the stage wait as may.
    TooManyWait,
    /// It has waited for [`MEMORY_PATIENCE`].
    TooLong,
}

impl NoRoom {
    /// How a delivery ends for which there is no room.
    pub fn outcome(self) -> Outcome {
        let (after, why) = match self {
            Self::Stopping => (Duration::ZERO, "the process stops"),
            Self::TooManyWait => (MEMORY_RETRY_DELAY, "as many messages as may wait for memory do so"),
            Self::TooLong => (MEMORY_RETRY_DELAY, "it waited long for memory"),
        };
        Outcome::Later { after, reason: format!("no memory for this message now: {why}") }
    }
}

impl Part {
    fn new(units: u32) -> Self {
        Self { units, free: Arc::new(Semaphore::new(units as usize)) }
    }

    fn taken(&self) -> u64 {
        u64::from(self.units).saturating_sub(self.free.available_permits() as u64)
    }

    fn take_now(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_many_owned(units.min(self.units)).ok()
    }
}

impl Budget {
    /// A budget of so many bytes; at least 1 MiB.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(UNBOUNDED).clamp(LEAST, UNBOUNDED);
        let large = u32::try_from(largest_share(units.into())).unwrap_or(units);
        let (small, large) = (Part::new(units - large), Part::new(large));
        let budget = Self(Arc::new(Shared { small, large, waiting: Mutex::default() }));
        budget.report_metrics();
        budget
    }

    /// One that nobody ever waits for.
    pub fn unbounded() -> Self {
        Self::new(u64::MAX)
    }

    /// How it stands.
    pub fn usage(&self) -> MemoryUse {
        let Shared { small, large, .. } = &*self.0;
        let waiting = self.waiting();
        let longest_wait = waiting.since.values().next().map_or(Duration::ZERO, Instant::elapsed);
        MemoryUse {
            budget: (u64::from(small.units) + u64::from(large.units)) * UNIT,
            reserved: (small.taken() + large.taken()) * UNIT,
            waiting: waiting.since.len(),
            longest_wait,
        }
    }

    /// From now on no share is given, and waits for one are refused. What is held stays.
    pub fn close(&self) {
        self.0.small.free.close();
        self.0.large.free.close();
    }

    /// The part for a share of this size.
    fn part(&self, units: u32) -> &Part {
        let Shared { small, large, .. } = &*self.0;
        if units <= small.units / SMALL_SHARES { small } else { large }
    }

    fn take_now(&self, bytes: u64) -> Option<Share> {
        let units = units(bytes);
        let own = self.part(units);
        // The first in the queue has all that is free, so none is overtaken.
        let permit = own.take_now(units).or_else(|| self.0.large.take_now(units))?;
        Some(self.share(permit))
    }

    async fn take(&self, stage: StageName, waits: &Semaphore, bytes: u64) -> Result<Share, NoRoom> {
        if let Some(share) = self.take_now(bytes) {
            return Ok(share);
        }
        let Ok(_waits) = waits.try_acquire() else {
            return Err(if self.0.large.free.is_closed() { NoRoom::Stopping } else { NoRoom::TooManyWait });
        };
        let units = units(bytes);
        let part = self.part(units);
        let begun = Instant::now();
        let waiting = Wait::begin(self);
        let free = Arc::clone(&part.free).acquire_many_owned(units.min(part.units));
        let taken = timeout(MEMORY_PATIENCE, waiting.reporting(free)).await;
        drop(waiting);
        metrics::waited_for_memory(stage, begun.elapsed());
        match taken {
            Ok(Ok(permit)) => Ok(self.share(permit)),
            Ok(Err(_closed)) => Err(NoRoom::Stopping),
            Err(_elapsed) => Err(NoRoom::TooLong),
        }
    }

    fn share(&self, permit: OwnedSemaphorePermit) -> Share {
        self.report_metrics();
        Share { budget: self.clone(), permit: Mutex::new(Some(permit)) }
    }

    fn report_metrics(&self) {
        let MemoryUse { budget, reserved, waiting, .. } = self.usage();
        metrics::memory(budget, reserved, waiting);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.0.waiting)
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding such a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One wait for room, from its beginning to its end, however it ends.
struct Wait<'a> {
    budget: &'a Budget,
    number: u64,
}

impl<'a> Wait<'a> {
    fn begin(budget: &'a Budget) -> Self {
        let mut waiting = budget.waiting();
        let number = waiting.next;
        waiting.next += 1;
        waiting.since.insert(number, Instant::now());
        drop(waiting);
        budget.report_metrics();
        Self { budget, number }
    }

    /// Waits, and logs it once for all waits when it takes long.
    async fn reporting<T>(&self, done: impl Future<Output = T>) -> T {
        let mut done = pin!(done);
        if let Ok(done) = timeout(MEMORY_LONG_WAIT, done.as_mut()).await {
            return done;
        }
        let is_first = !std::mem::replace(&mut self.budget.waiting().is_reported, true);
        if is_first {
            let MemoryUse { budget, reserved, waiting, .. } = self.budget.usage();
            tracing::warn!(
                waiting,
                reserved_mib = reserved / UNIT / UNIT,
                budget_mib = budget / UNIT / UNIT,
                "messages wait for memory, which those in hand have; worker.message_memory_mib says how much there is"
            );
        }
        done.await
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = self.budget.waiting();
        waiting.since.remove(&self.number);
        let over = waiting.since.is_empty() && std::mem::take(&mut waiting.is_reported);
        drop(waiting);
        if over {
            tracing::info!("no message waits for memory any more");
        }
        self.budget.report_metrics();
    }
}

/// A share of the budget; given back when dropped.
struct Share {
    budget: Budget,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Share {
    /// Gives back what is more than so many bytes.
    fn shrink(&self, bytes: u64) {
        let mut permit = lock(&self.permit);
        if let Some(permit) = permit.as_mut() {
            let left_over = permit.num_permits().saturating_sub(units(bytes) as usize);
            drop(permit.split(left_over));
        }
        drop(permit);
        self.budget.report_metrics();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        drop(lock(&self.permit).take());
        self.budget.report_metrics();
    }
}

/// The budget as one stage sees it. Cheap to clone.
#[derive(Clone)]
pub struct StageMemory {
    stage: StageName,
    budget: Budget,
    waits: Arc<Semaphore>,
}

impl StageMemory {
    /// For a stage with so many slots. Up to half of them wait for room, and at most [`MEMORY_WAITS`]; other deliveries
    /// that find none go back to the server, so that slots are left for messages that need little.
    pub fn new(stage: StageName, budget: Budget, slots: usize) -> Self {
        let waits = Arc::new(Semaphore::new((slots / 2).clamp(1, MEMORY_WAITS)));
        Self { stage, budget, waits }
    }

    /// The room for one delivery, of which nothing is taken yet.
    pub fn room(&self) -> Room {
        Room(Arc::new(Inner {
            memory: self.clone(),
            first: Mutex::new((0, None)),
            all: OnceCell::new(),
            refused: OnceLock::new(),
            refusal: Notify::new(),
        }))
    }
}

/// The memory of one delivery, given back when it is dropped.
pub struct Room(Arc<Inner>);

/// The same for holders that must not keep it.
#[derive(Clone)]
pub struct WeakRoom(Weak<Inner>);

impl WeakRoom {
    /// The room, unless the delivery is over.
    pub fn upgrade(&self) -> Option<Room> {
        self.0.upgrade().map(Room)
    }
}

impl fmt::Debug for WeakRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakRoom").finish_non_exhaustive()
    }
}

struct Inner {
    memory: StageMemory,
    /// Bytes and share that were taken first.
    first: Mutex<(u64, Option<Share>)>,
    /// The share in its place that has room for everything.
    all: OnceCell<Share>,
    refused: OnceLock<NoRoom>,
    refusal: Notify,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Room {
    /// For calls that may outlive the delivery.
    pub fn downgrade(&self) -> WeakRoom {
        WeakRoom(Arc::downgrade(&self.0))
    }

    /// Takes the first share; of nothing for nothing. Where none is to be had it never completes, and [`Room::refused`]
    /// does.
    pub async fn take(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        match self.reserve(bytes).await {
            Ok(share) => *lock(&self.0.first) = (bytes, Some(share)),
            Err(no_room) => self.refuse(no_room).await,
        }
    }

    /// The same of a share after which nothing more is taken.
    pub async fn take_all(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        if self.0.all.get_or_try_init(|| self.reserve(bytes)).await.is_err() {
            self.refuse_again().await;
        }
    }

    /// Takes a share that has room for so many bytes more than the first one had, in its place. Only the first call does:
    /// a caller that takes more says what all that is to come may need. Like [`Room::take`] where there is none.
    pub async fn take_more(&self, bytes: u64) {
        let taken = self.0.all.get_or_try_init(|| async {
            let first = lock(&self.0.first).1.take();
            drop(first);
            self.reserve(self.with_first(bytes)).await
        });
        if taken.await.is_err() {
            self.refuse_again().await;
        }
    }

    /// The same if there is room at this moment; whether there is.
    pub fn take_more_now(&self, bytes: u64) -> bool {
        if self.0.all.initialized() {
            return true;
        }
        let Some(share) = self.0.memory.budget.take_now(self.with_first(bytes)) else { return false };
        if self.0.all.set(share).is_err() {
            // Another call of this delivery has just taken it, or waits for it.
            return self.0.all.initialized();
        }
        drop(lock(&self.0.first).1.take());
        true
    }

    /// Gives back what is more than so many bytes beside the first share, now that it is known how much there is.
    pub fn shrink(&self, bytes: u64) {
        if let Some(share) = self.0.all.get() {
            share.shrink(self.with_first(bytes));
        }
    }

    /// Completes if no share can be had, and says why. The work of the delivery is over then.
    pub async fn refused(&self) -> NoRoom {
        loop {
            let refusal = self.0.refusal.notified();
            if let Some(refused) = self.0.refused.get() {
                return *refused;
            }
            refusal.await;
        }
    }

    fn with_first(&self, bytes: u64) -> u64 {
        lock(&self.0.first).0.saturating_add(bytes)
    }

    async fn reserve(&self, bytes: u64) -> Result<Share, NoRoom> {
        let StageMemory { stage, budget, waits } = &self.0.memory;
        let reserved = budget.take(*stage, waits, bytes).await;
        if let Err(no_room) = &reserved {
            let _first_word = self.0.refused.set(*no_room);
        }
        reserved
    }

    async fn refuse(&self, no_room: NoRoom) {
        let _first_word = self.0.refused.set(no_room);
        self.refuse_again().await;
    }

    async fn refuse_again(&self) {
        self.0.refusal.notify_waiters();
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
