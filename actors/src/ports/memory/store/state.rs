//! What the fake knows, and its rules.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Map, Value};
use throughline_schemas::{FailureCode, SessionId, Timestamp, UserId, WorkflowId, event::input::WhenBusy};

use crate::ports::store::{
    Admission, AdmissionResult, Admitted, Closed, EndedTurn, Ending, FailureRecord, Fingerprint, Holder,
    Interaction, MERGE_LIMIT_BYTES, Opening, SessionOwner, StoreError, TurnState, Verdict,
};

#[derive(Debug, Default, Clone)]
pub(super) struct State {
    pub(super) turns: HashMap<WorkflowId, Entry>,
    /// Open turns by session, in the order in which they run.
    pub(super) open: HashMap<SessionId, BTreeMap<Place, bool>>,
    pub(super) interactions: HashMap<WorkflowId, Interaction>,
    /// Saved interactions in the order of their input.
    pub(super) history: BTreeMap<(SessionId, UserId), BTreeMap<Place, WorkflowId>>,
    pub(super) preferences: HashMap<UserId, Map<String, Value>>,
    pub(super) faults: VecDeque<fn() -> StoreError>,
    /// How far the log is known to be here.
    pub(super) mark: u64,
}

/// A turn's place in its session: input sequence, then workflow id should two streams ever share a store.
pub(super) type Place = (u64, WorkflowId);

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) session: SessionId,
    pub(super) user: Option<UserId>,
    pub(super) input_sequence: u64,
    pub(super) state: TurnState,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) created_at: Timestamp,
    /// Since when it stands so.
    pub(super) updated_at: Timestamp,
    /// Kept while it is open, and of a turn that was superseded.
    pub(super) event: Option<Vec<u8>>,
    /// It takes in messages that come while it waits.
    pub(super) merges: bool,
    /// Its user had its share when it was to start. Means something while it waits.
    pub(super) held: bool,
    /// Why it failed, if its session had no place for it.
    pub(super) failure: Option<Failure>,
    /// Why it failed, if that was recorded.
    pub(super) record: Option<FailureRecord>,
}

impl Entry {
    pub(super) fn is_open(&self) -> bool {
        !self.state.is_end()
    }

    pub(super) fn code(&self) -> Option<FailureCode> {
        let of_a_busy_session = self.failure.as_ref().map(|failure| match failure {
            Failure::Rejected => FailureCode::SessionBusy,
            Failure::NotOwner => FailureCode::NotSessionOwner,
            Failure::TooManyOpen => FailureCode::TooManyOpen,
            Failure::InterruptedBy(_) => FailureCode::Interrupted,
            Failure::MergedInto(_) => FailureCode::Merged,
        });
        self.record.as_ref().map(FailureRecord::code).or(of_a_busy_session)
    }

    pub(super) fn superseded_by(&self) -> Option<&WorkflowId> {
        match self.failure.as_ref()? {
            Failure::Rejected | Failure::NotOwner | Failure::TooManyOpen => None,
            Failure::InterruptedBy(by) | Failure::MergedInto(by) => Some(by),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Rejected,
    NotOwner,
    TooManyOpen,
    InterruptedBy(WorkflowId),
    MergedInto(WorkflowId),
}

impl State {
    /// Who is first in each session of a run of admissions, should it have no owner yet.
    pub(super) fn firsts(&self, run: &[Admission]) -> HashMap<SessionId, UserId> {
        let mut of_run: Vec<&Admission> = run
            .iter()
            .filter(|admission| is_owned(admission) && !self.turns.contains_key(&admission.workflow_id))
            .collect();
        // The last that is put into a map stays.
        of_run.sort_by_key(|admission| std::cmp::Reverse((admission.input_sequence, &admission.workflow_id)));
        of_run.into_iter().map(|first| (first.session_id.clone(), first.user_id.clone())).collect()
    }

    /// The user of the first turn of a session that is on record: an ended one if there is one, else one that is open.
    fn owner(&self, session: &SessionId) -> Option<&UserId> {
        let of_session = || self.turns.iter().filter(|(_, turn)| turn.session == *session);
        let is_first = |(workflow, turn): &(&WorkflowId, &Entry)| (turn.input_sequence, (*workflow).clone());
        let ended = of_session()
            .filter(|(_, turn)| !turn.is_open() && turn.failure.is_none() && turn.user.is_some())
            .filter(|(_, turn)| turn.code() != Some(FailureCode::InvalidInput))
            .min_by_key(is_first);
        let open = || of_session().filter(|(_, turn)| turn.is_open()).min_by_key(is_first);
        ended.or_else(open).and_then(|(_, turn)| turn.user.as_ref())
    }

    pub(super) fn open(&mut self, admission: &Admission, firsts: &HashMap<SessionId, UserId>) {
        if self.turns.contains_key(&admission.workflow_id) {
            return;
        }
        let (mut state, mut kept, mut merges, mut failure) = (TurnState::Failed, None, false, None);
        let mut record = None;
        match &admission.verdict {
            Verdict::Accepted { event, when_busy, .. } => {
                let owner =
                    self.owner(&admission.session_id).or_else(|| firsts.get(&admission.session_id)).cloned();
                failure = if is_owned(admission) && owner.is_some_and(|owner| owner != admission.user_id) {
                    Some(Failure::NotOwner)
                } else {
                    self.busy(admission, event.len(), *when_busy)
                        .or_else(|| self.has_too_many(admission, None).then_some(Failure::TooManyOpen))
                };
                let refused =
                    matches!(failure, Some(Failure::Rejected | Failure::NotOwner | Failure::TooManyOpen));
                kept = (!refused).then(|| event.clone());
                merges = *when_busy == WhenBusy::Merge;
                if failure.is_none() {
                    state = TurnState::Waiting;
                    let place = (admission.input_sequence, admission.workflow_id.clone());
                    self.open.entry(admission.session_id.clone()).or_default().insert(place, false);
                }
            }
            Verdict::Refused { failure } => record = Some(failure.clone()),
        }
        let entry = Entry {
            session: admission.session_id.clone(),
            user: Some(admission.user_id.clone()),
            input_sequence: admission.input_sequence,
            state,
            fingerprint: Some(admission.fingerprint),
            created_at: admission.at,
            updated_at: admission.at,
            event: kept,
            merges,
            held: false,
            failure,
            record,
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
                    if self.has_too_many(admission, Some(&running)) {
                        return Some(Failure::TooManyOpen);
                    }
                    self.interrupt(&running, &admission.workflow_id, admission.at);
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

    fn interrupt(&mut self, running: &WorkflowId, by: &WorkflowId, at: Timestamp) {
        let Some(turn) = self.turns.get_mut(running) else { return };
        turn.state = TurnState::Failed;
        turn.failure = Some(Failure::InterruptedBy(by.clone()));
        turn.updated_at = at;
        if let Some(open) = self.open.get_mut(&turn.session) {
            open.remove(&(turn.input_sequence, running.clone()));
        }
    }

    pub(super) fn admitted(&self, admission: &Admission) -> Admitted {
        // It was opened just before.
        let Some(entry) = self.turns.get(&admission.workflow_id) else {
            return AdmissionResult::Ended.into();
        };
        let holder = Holder {
            input_sequence: Some(entry.input_sequence),
            session_id: &entry.session,
            user_id: entry.user.as_ref(),
            fingerprint: entry.fingerprint,
            state: entry.state,
            code: entry.code(),
        };
        if let Some(of_another) = admission.against(&holder) {
            return of_another.into();
        }
        let result = match (entry.state, &admission.verdict, &entry.failure) {
            (TurnState::Running, _, _) => AdmissionResult::Running,
            (TurnState::Waiting, _, _) if entry.held => AdmissionResult::Held,
            (TurnState::Waiting, _, _) => AdmissionResult::Waiting,
            (TurnState::Failed, Verdict::Refused { .. }, _) => AdmissionResult::Refused,
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::Rejected)) => {
                AdmissionResult::Rejected
            }
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::NotOwner)) => {
                AdmissionResult::NotOwner
            }
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::TooManyOpen)) => {
                AdmissionResult::TooManyOpen
            }
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::MergedInto(into))) => {
                AdmissionResult::Merged { into: into.clone() }
            }
            (TurnState::Failed, Verdict::Accepted { .. }, Some(Failure::InterruptedBy(_)) | None)
            | (TurnState::Saved, _, _) => AdmissionResult::Ended,
        };
        let (interrupted, opening) = match &admission.verdict {
            Verdict::Accepted { when_busy: WhenBusy::Interrupt | WhenBusy::Merge, .. } => {
                (self.interrupted_by(&admission.workflow_id), self.opening_in(&entry.session))
            }
            Verdict::Accepted { when_busy: WhenBusy::Enqueue | WhenBusy::Reject, .. }
            | Verdict::Refused { .. } => (None, None),
        };
        Admitted { result, interrupted, opening }
    }

    fn interrupted_by(&self, workflow: &WorkflowId) -> Option<Vec<u8>> {
        let by = Some(Failure::InterruptedBy(workflow.clone()));
        self.turns.values().find(|turn| turn.failure == by)?.event.clone()
    }

    /// Ends a turn unless it has ended, and starts the next one of its session.
    pub(super) fn end(&mut self, workflow: &WorkflowId, unknown: Entry, at: Timestamp) -> Closed {
        let (asked, sequence, record) = (unknown.state, unknown.input_sequence, unknown.record.clone());
        let entry = self.turns.entry(workflow.clone()).or_insert(unknown);
        if asked == TurnState::Failed && entry.input_sequence != sequence {
            return Closed { ending: Ending::Duplicate, next: None };
        }
        let is_open = entry.is_open();
        if is_open {
            (entry.state, entry.event, entry.record, entry.updated_at) = (asked, None, record, at);
        }
        let ending = if entry.state == asked { Ending::AsAsked } else { Ending::Otherwise };
        let (session, place) = (entry.session.clone(), (entry.input_sequence, workflow.clone()));
        if is_open {
            self.forget_merged(workflow);
        }
        if let Some(open) = self.open.get_mut(&session) {
            open.remove(&place);
        }
        self.start_next(&session, at);
        Closed { ending, next: self.opening_in(&session) }
    }

    /// What was merged into a turn that has ended is not needed any more.
    pub(super) fn forget_merged(&mut self, workflow: &WorkflowId) {
        let into = Some(Failure::MergedInto(workflow.clone()));
        for merged in self.turns.values_mut().filter(|turn| turn.failure == into) {
            merged.event = None;
        }
    }

    /// The turn that ended before a place in a session.
    pub(super) fn ended_before(&self, session: &SessionId, sequence: u64) -> Option<EndedTurn> {
        let ended = self.turns.iter().filter(|(_, turn)| {
            !turn.is_open()
                && turn.failure.is_none()
                && turn.session == *session
                && turn.input_sequence < sequence
        });
        let (workflow, turn) = ended.max_by_key(|(_, turn)| turn.input_sequence)?;
        let saved = turn.state == TurnState::Saved;
        Some(EndedTurn { workflow_id: workflow.clone(), saved, ended_at: turn.updated_at })
    }

    /// What the running turn of a session began with.
    pub(super) fn opening_in(&self, session: &SessionId) -> Option<Opening> {
        self.opening_of(self.running_in(session)?)
    }

    /// The turn that runs in a session.
    pub(super) fn running_in(&self, session: &SessionId) -> Option<&WorkflowId> {
        let ((_, running), _) = self.open.get(session)?.iter().find(|(_, running)| **running)?;
        Some(running)
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
pub(super) fn ended(
    state: TurnState,
    (session, user): (&SessionId, &UserId),
    input_sequence: u64,
    at: Timestamp,
) -> Entry {
    Entry {
        session: session.clone(),
        user: Some(user.clone()),
        input_sequence,
        state,
        fingerprint: None,
        created_at: at,
        updated_at: at,
        event: None,
        merges: false,
        held: false,
        failure: None,
        record: None,
    }
}

/// Whether an input is only for the owner of its session to make.
fn is_owned(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { owner, .. } => *owner == SessionOwner::FirstUser,
        Verdict::Refused { .. } => false,
    }
}

/// Whether an input is content to wait; what another does depends on who runs when it comes.
pub(super) fn waits(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { when_busy, .. } => *when_busy == WhenBusy::Enqueue,
        Verdict::Refused { .. } => true,
    }
}
