//! What the fake knows, and its rules.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Map, Value};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId, event::input::WhenBusy};

use super::TurnState;
use crate::ports::store::{
    Admission, Admitted, Closed, EndedTurn, Ending, Interaction, MERGE_LIMIT_BYTES, Opening, Standing,
    StoreError, Verdict,
};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) turns: HashMap<WorkflowId, Entry>,
    /// Open turns by session, in the order in which they run.
    open: HashMap<SessionId, BTreeMap<Place, bool>>,
    pub(super) interactions: HashMap<WorkflowId, Interaction>,
    /// Saved interactions in the order of their input.
    pub(super) history: BTreeMap<(SessionId, UserId), BTreeMap<Place, WorkflowId>>,
    pub(super) preferences: HashMap<UserId, Map<String, Value>>,
    pub(super) faults: VecDeque<fn() -> StoreError>,
}

/// A turn's place in its session: input sequence, then workflow id should two streams ever share a store.
pub(super) type Place = (u64, WorkflowId);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: SessionId,
    /// Unknown if it failed before it was admitted.
    pub(super) user: Option<UserId>,
    pub(super) input_sequence: u64,
    pub(super) state: TurnState,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    /// Kept while it is open, and of a turn that was superseded.
    pub(super) event: Option<Vec<u8>>,
    /// It takes in messages that come while it waits.
    pub(super) merges: bool,
    /// Why it failed, if it failed on admission.
    pub(super) failure: Option<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Rejected,
    InterruptedBy(WorkflowId),
    MergedInto(WorkflowId),
}

impl State {
    pub(super) fn open(&mut self, admission: &Admission) {
        if self.turns.contains_key(&admission.workflow_id) {
            return;
        }
        let (mut state, mut kept, mut merges, mut failure) = (TurnState::Failed, None, false, None);
        if let Verdict::Accepted { event, when_busy } = &admission.verdict {
            failure = self.busy(admission, event.len(), *when_busy);
            kept = (failure != Some(Failure::Rejected)).then(|| event.clone());
            merges = *when_busy == WhenBusy::Merge;
            if failure.is_none() {
                state = TurnState::Waiting;
                let place = (admission.input_sequence, admission.workflow_id.clone());
                self.open.entry(admission.session_id.clone()).or_default().insert(place, false);
            }
        }
        let entry = Entry {
            session: admission.session_id.clone(),
            user: Some(admission.user_id.clone()),
            input_sequence: admission.input_sequence,
            state,
            started_at: None,
            ended_at: (state == TurnState::Failed).then_some(admission.at),
            event: kept,
            merges,
            failure,
        };
        self.turns.insert(admission.workflow_id.clone(), entry);
    }

    /// Why it fails at once, if it does. What it interrupts, ends.
    fn busy(&mut self, admission: &Admission, bytes: usize, when_busy: WhenBusy) -> Option<Failure> {
        let open = self.open.get(&admission.session_id).filter(|open| !open.is_empty())?;
        match when_busy {
            WhenBusy::Enqueue => None,
            WhenBusy::Reject => Some(Failure::Rejected),
            WhenBusy::Interrupt => {
                let ((sequence, running), _) = open.iter().find(|(_, running)| **running)?;
                if *sequence < admission.input_sequence {
                    let running = running.clone();
                    self.interrupt(&running, &admission.workflow_id);
                }
                None
            }
            WhenBusy::Merge => {
                let ((sequence, last), running) = open.last_key_value()?;
                let turn = self.turns.get(last)?;
                let opening = self.opening_of(last)?;
                let together =
                    opening.merged.iter().map(Vec::len).sum::<usize>() + opening.event.len() + bytes;
                let joins = !running
                    && turn.merges
                    && *sequence < admission.input_sequence
                    && turn.user.as_ref() == Some(&admission.user_id)
                    && together <= MERGE_LIMIT_BYTES;
                joins.then(|| Failure::MergedInto(last.clone()))
            }
        }
    }

    fn interrupt(&mut self, running: &WorkflowId, by: &WorkflowId) {
        let Some(turn) = self.turns.get_mut(running) else { return };
        turn.state = TurnState::Failed;
        turn.failure = Some(Failure::InterruptedBy(by.clone()));
        if let Some(open) = self.open.get_mut(&turn.session) {
            open.remove(&(turn.input_sequence, running.clone()));
        }
    }

    /// Starts the session's first waiting turn if none is running.
    pub(super) fn start_next(&mut self, session: &SessionId, at: Timestamp) {
        let Some(open) = self.open.get_mut(session) else { return };
        if open.values().any(|running| *running) {
            return;
        }
        let Some(mut first) = open.first_entry() else { return };
        first.insert(true);
        if let Some(turn) = self.turns.get_mut(&first.key().1) {
            turn.state = TurnState::Running;
            turn.started_at = Some(at);
        }
    }

    pub(super) fn admitted(&self, admission: &Admission) -> Admitted {
        let Some(entry) = self.turns.get(&admission.workflow_id) else { return Standing::Duplicate.into() };
        if entry.input_sequence != admission.input_sequence {
            return Standing::Duplicate.into();
        }
        let standing = match (entry.state, &admission.verdict, &entry.failure) {
            (TurnState::Running, _, _) => Standing::Running,
            (TurnState::Waiting, _, _) => Standing::Waiting,
            (TurnState::Failed, Verdict::Refused, _) => Standing::Refused,
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::Rejected)) => Standing::Rejected,
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::MergedInto(into))) => {
                Standing::Merged { into: into.clone() }
            }
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::InterruptedBy(_)) | None)
            | (TurnState::Saved, _, _) => Standing::Ended,
        };
        let (interrupted, opening) = match &admission.verdict {
            Verdict::Accepted { when_busy: WhenBusy::Interrupt | WhenBusy::Merge, .. } => {
                (self.interrupted_by(&admission.workflow_id), self.opening_in(&entry.session))
            }
            Verdict::Accepted { when_busy: WhenBusy::Enqueue | WhenBusy::Reject, .. } | Verdict::Refused => {
                (None, None)
            }
        };
        Admitted { standing, interrupted, opening }
    }

    fn interrupted_by(&self, workflow: &WorkflowId) -> Option<Vec<u8>> {
        let by = Some(Failure::InterruptedBy(workflow.clone()));
        self.turns.values().find(|turn| turn.failure == by)?.event.clone()
    }

    /// Ends a turn unless it has ended, and starts the next one of its session.
    pub(super) fn end(&mut self, workflow: &WorkflowId, unknown: Entry, at: Timestamp) -> Closed {
        let (asked, sequence) = (unknown.state, unknown.input_sequence);
        let entry = self.turns.entry(workflow.clone()).or_insert(unknown);
        if asked == TurnState::Failed && entry.input_sequence != sequence {
            return Closed { ending: Ending::Duplicate, next: None };
        }
        let is_open = matches!(entry.state, TurnState::Waiting | TurnState::Running);
        if is_open {
            entry.state = asked;
            entry.event = None;
        }
        entry.ended_at.get_or_insert(at);
        let ending = if entry.state == asked { Ending::AsAsked } else { Ending::Otherwise };
        let (session, place) = (entry.session.clone(), (entry.input_sequence, workflow.clone()));
        if is_open {
            let into = Some(Failure::MergedInto(workflow.clone()));
            for merged in self.turns.values_mut().filter(|turn| turn.failure == into) {
                merged.event = None;
            }
        }
        if let Some(open) = self.open.get_mut(&session) {
            open.remove(&place);
        }
        self.start_next(&session, at);
        Closed { ending, next: self.opening_in(&session) }
    }

    /// The turn that ended before a place in a session.
    pub(super) fn ended_before(&self, session: &SessionId, sequence: u64) -> Option<EndedTurn> {
        let ended = self.turns.iter().filter(|(_, turn)| {
            let is_over =
                matches!(turn.state, TurnState::Saved | TurnState::Failed) && turn.failure.is_none();
            is_over && turn.session == *session && turn.input_sequence < sequence
        });
        let (workflow, turn) = ended.max_by_key(|(_, turn)| turn.input_sequence)?;
        let saved = turn.state == TurnState::Saved;
        Some(EndedTurn { workflow_id: workflow.clone(), saved, ended_at: turn.ended_at? })
    }

    /// What the running turn of a session began with.
    fn opening_in(&self, session: &SessionId) -> Option<Opening> {
        let ((_, running), _) = self.open.get(session)?.iter().find(|(_, running)| **running)?;
        self.opening_of(running)
    }

    pub(super) fn opening_of(&self, workflow: &WorkflowId) -> Option<Opening> {
        let event = self.turns.get(workflow)?.event.clone()?;
        let into = Some(Failure::MergedInto(workflow.clone()));
        let mut merged: Vec<&Entry> = self.turns.values().filter(|turn| turn.failure == into).collect();
        merged.sort_by_key(|turn| turn.input_sequence);
        Some(Opening { event, merged: merged.into_iter().filter_map(|turn| turn.event.clone()).collect() })
    }
}

/// A turn that ended before it was admitted.
pub(super) fn ended(state: TurnState, session: &SessionId, input_sequence: u64) -> Entry {
    Entry {
        session: session.clone(),
        user: None,
        input_sequence,
        state,
        started_at: None,
        ended_at: None,
        event: None,
        merges: false,
        failure: None,
    }
}

/// Whether an input is content to wait; what another does depends on who runs when it comes.
pub(super) fn waits(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { when_busy, .. } => *when_busy == WhenBusy::Enqueue,
        Verdict::Refused => true,
    }
}
