//! Replaying recorded workflows, on all cores, each with a paused clock of its own.

use std::{num::NonZeroUsize, sync::Arc, thread};

use throughline_actors::{
    replay::{CompareError, Difference, NotReplayed, RecordedWorkflow, Replayed, Replayer, Verdict},
    supervision::engine::StartError,
};
use throughline_schemas::{EventType, WorkflowId};
use tokio::sync::mpsc;

use super::Setup;

/// Workflows that may wait for one core.
const AHEAD: usize = 32;

/// A workflow whose every result was replayed.
#[derive(Debug)]
pub struct Verified {
    /// The workflow.
    pub workflow: WorkflowId,
    /// Each of its results.
    pub results: Result<Vec<Replayed>, CompareError>,
}

/// The first thing in which a workflow came out otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Deviation {
    /// The event.
    pub event_type: EventType,
    /// Its sequence in the event stream.
    pub sequence: u64,
    /// The field, if the event was made at all.
    pub difference: Option<Difference>,
    /// What was made instead, if it was not.
    pub instead: Option<String>,
}

impl Verified {
    /// The first deviation, in the order of the journey.
    pub fn deviation(&self) -> Option<Deviation> {
        let results = self.results.as_ref().ok()?;
        results.iter().find_map(|Replayed { event_type, sequence, verdict }| {
            let (difference, instead) = match verdict {
                Verdict::Identical | Verdict::NotReplayed(_) => return None,
                Verdict::Differs(difference) => (Some(difference.clone()), None),
                Verdict::Instead(instead) => (None, Some(instead.clone())),
            };
            Some(Deviation { event_type: *event_type, sequence: *sequence, difference, instead })
        })
    }

    /// Results that were replayed and are identical, and those that were taken as they are.
    pub fn counts(&self) -> (usize, Vec<NotReplayed>) {
        let results = self.results.as_deref().unwrap_or_default();
        let identical = results.iter().filter(|one| one.verdict == Verdict::Identical).count();
        let taken = results.iter().filter_map(|one| match one.verdict {
            Verdict::NotReplayed(why) => Some(why),
            Verdict::Identical | Verdict::Differs(_) | Verdict::Instead(_) => None,
        });
        (identical, taken.collect())
    }
}

/// Threads that replay workflows.
pub struct Verifier {
    lanes: Vec<mpsc::Sender<RecordedWorkflow>>,
    next: usize,
    verified: mpsc::Receiver<Verified>,
}

impl Verifier {
    /// One thread for each core.
    pub fn start(setup: &Setup) -> Result<Self, StartError> {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (results, verified) = mpsc::channel(cores * AHEAD);
        let mut lanes = Vec::new();
        for _ in 0..cores {
            let (lane, recorded_workflows) = mpsc::channel(AHEAD);
            let replayer =
                Replayer::new(&setup.settings, Arc::clone(&setup.template), Arc::clone(&setup.tokenizer))?;
            let results = results.clone();
            thread::spawn(move || work(&replayer, recorded_workflows, &results));
            lanes.push(lane);
        }
        Ok(Self { lanes, next: 0, verified })
    }

    /// Hands a workflow to the next thread, waiting while that has enough to do. False if it has ended, by a panic.
    pub async fn give(&mut self, recorded: RecordedWorkflow) -> bool {
        let at = self.next;
        self.next = (at + 1) % self.lanes.len();
        self.lanes[at].send(recorded).await.is_ok()
    }

    /// There will be no more workflows.
    pub fn close(&mut self) {
        self.lanes.clear();
    }

    /// The next workflow that is done; `None` when all are.
    pub async fn next(&mut self) -> Option<Verified> {
        self.verified.recv().await
    }
}

fn work(
    replayer: &Replayer,
    mut recorded_workflows: mpsc::Receiver<RecordedWorkflow>,
    results: &mpsc::Sender<Verified>,
) {
    while let Some(recorded) = recorded_workflows.blocking_recv() {
        // A clock for each workflow: none of them sees how late it is in another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let Ok(runtime) = runtime else { return };
        let verified = runtime.block_on(replayer.verify(&recorded));
        if results.blocking_send(Verified { workflow: recorded.workflow, results: verified }).is_err() {
            return;
        }
    }
}
