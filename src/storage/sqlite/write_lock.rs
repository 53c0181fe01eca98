//! The order in which the processes that share a file write to it.
//!
//! SQLite itself tries again after sleeps that grow (1, 2, 5, 10 ms and more), so the process that has just committed
//! finds the lock free before the others look, and they wait for many of its commits. Here they queue in the kernel:
//! the next writer holds the gate, so that the last one stands behind it, and is woken as soon as the place is free.
//!
//! This is about order and speed only; what may be written is decided by SQLite's own lock. A process that cannot get in
//! within [`PATIENCE`], or has no such locks, writes without.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// How long a writer waits for the others at most: a few hundred commits. A process may stand still in there.
const PATIENCE: Duration = Duration::from_secs(1);

/// Two locks beside the database, which end with the process that holds them.
#[derive(Debug)]
struct Locks {
    gate: File,
    place: File,
}

impl Locks {
    fn open(database: &Path) -> io::Result<Self> {
        let beside = |suffix: &str| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            File::options().create(true).truncate(false).write(true).open(path)
        };
        Ok(Self { gate: beside("-gate")?, place: beside("-place")? })
    }

    /// `None` if another process is in there or waits.
    fn try_enter(self: &Arc<Self>) -> io::Result<Option<WriteSlot>> {
        let free = |tried| match tried {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        };
        if !free(self.gate.try_lock())? {
            return Ok(None);
        }
        let entered = free(self.place.try_lock());
        self.gate.unlock()?;
        Ok(entered?.then(|| WriteSlot(Arc::clone(self))))
    }

    /// Blocks its thread until it is in.
    fn enter(self: &Arc<Self>) -> io::Result<WriteSlot> {
        self.gate.lock()?;
        let entered = self.place.lock();
        self.gate.unlock()?;
        entered.map(|()| WriteSlot(Arc::clone(self)))
    }
}

/// Dropping it lets the next one in.
#[derive(Debug)]
pub(super) struct WriteSlot(Arc<Locks>);

impl Drop for WriteSlot {
    fn drop(&mut self) {
        // It was locked here; an error would mean that the file is gone, and the lock with it.
        let _ = self.0.place.unlock();
    }
}

/// One process's way in.
#[derive(Debug)]
pub(super) struct WriteLock {
    /// `None` where there are no such locks.
    locks: Option<Arc<Locks>>,
    /// An earlier attempt that was given up. It lets go as soon as it is in.
    waiting: Option<JoinHandle<()>>,
}

impl WriteLock {
    pub(super) fn of(database: &Path) -> Self {
        let locks = Locks::open(database).inspect_err(without).ok();
        Self { locks: locks.map(Arc::new), waiting: None }
    }

    /// Waits for this process's turn. `None` means: write without one.
    pub(super) async fn enter(&mut self) -> Option<WriteSlot> {
        if self.waiting.as_ref().is_some_and(|waiting| !waiting.is_finished()) {
            return None;
        }
        let locks = Arc::clone(self.locks.as_ref()?);
        match locks.try_enter() {
            Ok(Some(slot)) => return Some(slot),
            Ok(None) => {}
            Err(error) => {
                without(&error);
                self.locks = None;
                return None;
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let (sender, slot) = oneshot::channel();
        // A slot that is not taken any more is dropped with the channel, which lets the next one in.
        self.waiting = Some(tokio::task::spawn_blocking(move || drop(sender.send(locks.enter()))));
        match timeout_at(deadline, slot).await {
            Ok(Ok(Ok(slot))) => Some(slot),
            Ok(Ok(Err(error))) => {
                without(&error);
                None
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

fn without(error: &io::Error) {
    tracing::debug!(%error, "processes that share this database write in no order");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn two() -> (tempfile::TempDir, WriteLock, WriteLock) {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("a.db");
        let locks = (WriteLock::of(&database), WriteLock::of(&database));
        (dir, locks.0, locks.1)
    }

    #[tokio::test]
    async fn the_waiter_is_next_although_the_other_comes_back_at_once() {
        let (_dir, mut a, mut b) = two();
        let first = a.enter().await.unwrap();
        let (entered, mut told) = oneshot::channel();
        let other = tokio::spawn(async move {
            let slot = b.enter().await;
            entered.send(()).unwrap();
            slot
        });
        // It stands at the gate.
        while a.locks.as_ref().unwrap().gate.try_lock().is_ok() {
            a.locks.as_ref().unwrap().gate.unlock().unwrap();
            assert!(told.try_recv().is_err(), "one at a time");
            tokio::task::yield_now().await;
        }
        drop(first);
        let again = tokio::spawn(async move { a.enter().await });
        let slot = other.await.unwrap();
        assert!(slot.is_some());
        assert!(!again.is_finished(), "one at a time");
        drop(slot);
        assert!(again.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn nobody_waits_for_ever_and_who_gave_up_holds_nothing() {
        let (_dir, mut a, mut b) = two();
        let stuck = a.enter().await.unwrap();
        let began = Instant::now();
        assert!(b.enter().await.is_none());
        assert!(began.elapsed() >= PATIENCE);
        // Once is enough.
        let began = Instant::now();
        assert!(b.enter().await.is_none());
        assert!(began.elapsed() < PATIENCE / 2);
        drop(stuck);
        b.waiting.take().unwrap().await.unwrap();
        assert!(b.enter().await.is_some());
        assert!(a.enter().await.is_some());
    }

    #[tokio::test]
    async fn without_a_place_for_locks_everybody_writes() {
        assert!(WriteLock::of(Path::new("/nowhere/at/all.db")).enter().await.is_none());
    }
}
