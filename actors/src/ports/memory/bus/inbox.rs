//! Deliveries of the fake, and answers for them.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use throughline_schemas::{Namespace, StageName};
use tokio::{sync::watch, time::Instant};

use super::{Shared, Stored, log::Next, unavailable};
use crate::ports::bus::{BusError, Delivery, Inbox, Receipt, Settlement};

/// A pinned inbox that has not asked for so long is replaced by another.
const PIN_TIME_TO_LIVE: Duration = Duration::from_secs(5);
/// How often a pinned inbox asks.
const PIN_RENEWAL: Duration = Duration::from_secs(2);

/// What another inbox left has been delivered at least once before.
const LEFT_DELIVERY: u32 = 2;

/// See [`Inbox`].
pub(super) struct MemoryInbox {
    id: u64,
    shared: Arc<Shared>,
    stage: StageName,
    /// It hands out what the stage's consumer has given up on.
    undeliverable: bool,
    credit: usize,
    changes: watch::Receiver<u64>,
    /// The bare subject that the stage consumes; with tokens behind it, the others.
    prefix: String,
    /// What the pinned inbox before this one left.
    inherited: VecDeque<Stored>,
}

fn prefix(ns: &Namespace, stage: StageName) -> String {
    ns.events_of(stage.consumes()).trim_end_matches(".>").to_owned()
}

fn is_below(prefix: &str, subject: &str) -> bool {
    subject.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a stage consumes what is published on this subject.
pub(super) fn wants(ns: &Namespace, stage: StageName, subject: &str) -> bool {
    is_below(&prefix(ns, stage), subject)
}

impl MemoryInbox {
    pub(super) fn new(shared: Arc<Shared>, stage: StageName, undeliverable: bool) -> Self {
        let prefix = prefix(&shared.ns, stage);
        let changes = shared.changes.subscribe();
        let id = shared.inboxes.fetch_add(1, Ordering::Relaxed);
        Self { id, shared, stage, undeliverable, credit: 0, changes, prefix, inherited: VecDeque::new() }
    }

    fn take(&mut self) -> Next {
        if self.credit == 0 {
            return Next::Nothing;
        }
        let mut state = self.shared.lock();
        if state.offline {
            return Next::Nothing;
        }
        let (now, ack_wait) = (Instant::now(), self.shared.ack_wait);
        if self.undeliverable {
            return state.log.next_undeliverable(self.stage, now, ack_wait);
        }
        if self.is_pinned() {
            match &mut state.pin {
                Some((id, asked)) if *id == self.id => *asked = now,
                Some((_, asked)) if now < *asked + PIN_TIME_TO_LIVE => {
                    return Next::At(*asked + PIN_TIME_TO_LIVE);
                }
                pin => {
                    *pin = Some((self.id, now));
                    self.inherited = state.log.unanswered(self.stage).into();
                }
            }
            if let Some(message) = self.inherited.pop_front() {
                return Next::Left(message);
            }
        }
        let wants = |subject: &str| is_below(&self.prefix, subject);
        let given_up = state.log.undeliverable(self.stage);
        let next = state.log.next(self.stage, wants, now, ack_wait, self.shared.max_deliver);
        if state.log.undeliverable(self.stage) > given_up {
            // The handler of undeliverable messages may be waiting.
            self.shared.changed();
        }
        match next {
            Next::Nothing if self.stage == StageName::Input => Next::At(Instant::now() + PIN_RENEWAL),
            Next::At(at) if self.stage == StageName::Input => Next::At(at.min(Instant::now() + PIN_RENEWAL)),
            Next::Message(..) | Next::Left(_) | Next::At(_) | Next::Nothing => next,
        }
    }

    /// Dead-lettering are anybody's.
    fn is_pinned(&self) -> bool {
        self.stage == StageName::Input && !self.undeliverable
    }

    fn deliver(&mut self, message: Stored, delivered: u32, answerable: bool) -> Delivery {
        self.credit -= 1;
        let receipt = MemoryReceipt {
            shared: Arc::clone(&self.shared),
            stage: self.stage,
            undeliverable: self.undeliverable,
            sequence: message.sequence,
            answerable,
        };
        Delivery {
            subject: message.subject,
            headers: message.headers,
            body: message.body,
            kept: None,
            sequence: message.sequence,
            delivered,
            maybe_worked_on: false,
            published_at: message.stored_at,
            received_at: Instant::now(),
            receipt: Arc::new(receipt),
        }
    }
}

impl Drop for MemoryInbox {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if self.is_pinned() && state.pin.is_some_and(|(id, _)| id == self.id) {
            state.pin = None;
            drop(state);
            self.shared.changed();
        }
    }
}

#[async_trait]
impl Inbox for MemoryInbox {
    async fn grant(&mut self, n: usize) -> Result<(), BusError> {
        self.credit += n;
        Ok(())
    }

    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            self.changes.mark_unchanged();
            let wake = match self.take() {
                Next::Message(message, delivered) => return Ok(self.deliver(message, delivered, true)),
                Next::Left(message) => return Ok(self.deliver(message, LEFT_DELIVERY, false)),
                Next::At(at) => Some(at),
                Next::Nothing => None,
            };
            let due = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as `shared`.
                _ = self.changes.changed() => {}
                () = due => {}
            }
        }
    }
}

/// Answers for one delivery; as with the server, a late answer counts for the message.
struct MemoryReceipt {
    shared: Arc<Shared>,
    stage: StageName,
    undeliverable: bool,
    sequence: u64,
    /// Whether it was given to this inbox, not to the one before.
    answerable: bool,
}

#[async_trait]
impl Receipt for MemoryReceipt {
    async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("settling a delivery"));
            }
            if !self.answerable {
                return Ok(());
            }
            let pending = state.log.pending(self.stage, self.undeliverable);
            match settlement {
                Settlement::Acknowledged | Settlement::Terminated { .. } => pending.finish(self.sequence),
                Settlement::Retried { after } => {
                    pending.postpone(self.sequence, Instant::now() + after, true);
                }
            }
        }
        self.shared.changed();
        Ok(())
    }

    async fn progress(&self) -> Result<(), BusError> {
        let mut state = self.shared.lock();
        if state.offline {
            return Err(unavailable("reporting progress"));
        }
        if !self.answerable {
            return Ok(());
        }
        let pending = state.log.pending(self.stage, self.undeliverable);
        pending.postpone(self.sequence, Instant::now() + self.shared.ack_wait, false);
        Ok(())
    }
}
