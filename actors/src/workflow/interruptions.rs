//! Hints that the turn of a workflow was ended while it ran: the worker that runs it, in any process, asks the database
//! whether that is so, and stops then.
//!
//! Best effort, on `{ns}.control.interrupt`: what goes on all the same ends in nothing, since the database has the end. A
//! hint proves nothing, since more than workers may be able to write there.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use throughline_schemas::WorkflowId;
use tokio::sync::watch;

use crate::{policy::limits::BUS_RETRY_DELAY, ports::bus::Broadcast};

/// The control topic.
const TOPIC: &str = "interrupt";
/// How long one announcement may take before it is given up.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(5);
/// Hints that are remembered, for work that was between two stages.
const REMEMBERED: usize = 10_000;

/// What is said on the control topic.
#[derive(Serialize, Deserialize)]
struct Interrupted {
    workflow_id: WorkflowId,
}

/// The latest hints, as this process has received them. Clones share them.
#[derive(Clone, Default)]
pub struct Interruptions(Arc<Shared>);

#[derive(Default)]
struct Shared {
    recent: Mutex<Recent>,
    heard: watch::Sender<u64>,
}

#[derive(Default)]
struct Recent {
    /// How often each was received.
    known: HashMap<WorkflowId, u64>,
    order: VecDeque<WorkflowId>,
}

impl Interruptions {
    /// Tells every process, this one at once.
    pub async fn announce(&self, bus: &dyn Broadcast, workflow: &WorkflowId) {
        self.note(workflow.clone());
        let Ok(body) = serde_json::to_vec(&Interrupted { workflow_id: workflow.clone() }) else { return };
        match tokio::time::timeout(ANNOUNCE_TIMEOUT, bus.announce(TOPIC, body.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "interruption not announced"),
            Err(_) => tracing::debug!("interruption not announced in time"),
        }
    }

    /// Receives hints for as long as it is polled.
    pub async fn listen(self, bus: Arc<dyn Broadcast>) {
        loop {
            match bus.announced_on(TOPIC).await {
                Ok(mut hints) => {
                    while let Some(body) = hints.next().await {
                        self.read(&body);
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot subscribe to interruptions"),
            }
            tokio::time::sleep(BUS_RETRY_DELAY).await;
        }
    }

    /// Completes when there have been more hints about this workflow than `heard`; how many there are then.
    pub async fn of(&self, workflow: &WorkflowId, heard: u64) -> u64 {
        let mut changed = self.0.heard.subscribe();
        loop {
            let now = self.lock().known.get(workflow).copied().unwrap_or_default();
            if now > heard {
                return now;
            }
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    fn read(&self, body: &Bytes) {
        match serde_json::from_slice(body) {
            Ok(Interrupted { workflow_id }) => self.note(workflow_id),
            Err(error) => tracing::debug!(%error, "an announcement of an interruption cannot be read"),
        }
    }

    fn note(&self, workflow: WorkflowId) {
        {
            let mut recent = self.lock();
            let heard = recent.known.entry(workflow.clone()).or_default();
            *heard += 1;
            if *heard == 1 {
                recent.order.push_back(workflow);
            }
            while recent.order.len() > REMEMBERED
                && let Some(oldest) = recent.order.pop_front()
            {
                recent.known.remove(&oldest);
            }
        }
        self.0.heard.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
