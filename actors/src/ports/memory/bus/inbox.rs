//! Deliveries of the fake, and answers for them.

use std::sync::Arc;

use async_trait::async_trait;
use throughline_schemas::StageName;
use tokio::{sync::watch, time::Instant};

use super::{Shared, log::Next, unavailable};
use crate::ports::bus::{BusError, Delivery, Inbox, Receipt, Settlement, consumed_by};

/// See [`Inbox`].
pub(super) struct MemoryInbox {
    shared: Arc<Shared>,
    stage: StageName,
    credit: usize,
    changes: watch::Receiver<u64>,
    /// The bare subject that the stage consumes; with tokens behind it, the others.
    prefix: String,
}

impl MemoryInbox {
    pub(super) fn new(shared: Arc<Shared>, stage: StageName) -> Self {
        let all = shared.ns.events_of(consumed_by(stage));
        let prefix = all.trim_end_matches(".>").to_owned();
        let changes = shared.changes.subscribe();
        Self { shared, stage, credit: 0, changes, prefix }
    }

    fn take(&self) -> Next {
        if self.credit == 0 {
            return Next::Nothing;
        }
        let mut state = self.shared.lock();
        if state.offline {
            return Next::Nothing;
        }
        let wants = |subject: &str| {
            subject.strip_prefix(&self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        state.log.next(self.stage, wants, Instant::now(), self.shared.ack_wait)
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
                Next::Message(message, delivered) => {
                    self.credit -= 1;
                    let receipt = MemoryReceipt {
                        shared: Arc::clone(&self.shared),
                        stage: self.stage,
                        sequence: message.sequence,
                    };
                    return Ok(Delivery {
                        subject: message.subject,
                        headers: message.headers,
                        body: message.body,
                        sequence: message.sequence,
                        delivered,
                        published_at: message.stored_at,
                        receipt: Arc::new(receipt),
                    });
                }
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
    sequence: u64,
}

#[async_trait]
impl Receipt for MemoryReceipt {
    async fn settle(&self, settlement: Settlement) -> Result<(), BusError> {
        {
            let mut state = self.shared.lock();
            if state.offline {
                return Err(unavailable("settling a delivery"));
            }
            match settlement {
                Settlement::Acknowledged | Settlement::Terminated { .. } => {
                    state.log.finish(self.stage, self.sequence);
                }
                Settlement::Retried { after } => {
                    state.log.postpone(self.stage, self.sequence, Instant::now() + after, true);
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
        state.log.postpone(self.stage, self.sequence, Instant::now() + self.shared.ack_wait, false);
        Ok(())
    }
}
