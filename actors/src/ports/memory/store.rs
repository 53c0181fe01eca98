//! A store that forgets everything when it is dropped.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde_json::{Map, Value};
use throughline_schemas::{
    SessionId, Timestamp, UserId, WorkflowId,
    event::context::{Context, Turn},
};

use crate::ports::store::{Admission, Admitted, Closed, Ending, Interaction, Store, StoreError, Verdict};

/// The fake. Like the real ones it keeps every rule of [`Store`]; unlike them it can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    turns: HashMap<WorkflowId, Entry>,
    /// Open turns by session, in the order in which they run.
    open: HashMap<SessionId, BTreeMap<Place, bool>>,
    interactions: HashMap<WorkflowId, Interaction>,
    /// Saved interactions in the order of their input.
    history: BTreeMap<(SessionId, UserId), BTreeMap<Place, WorkflowId>>,
    preferences: HashMap<UserId, Map<String, Value>>,
    faults: VecDeque<fn() -> StoreError>,
}

/// A turn's place in its session: input sequence, then workflow id should two streams ever share a store.
type Place = (u64, WorkflowId);

#[derive(Debug)]
struct Entry {
    session: SessionId,
    /// Unknown if it failed before it was admitted.
    input_sequence: Option<u64>,
    state: TurnState,
    /// Kept only while a turn is open that had to wait.
    event: Option<Vec<u8>>,
}

/// Where a turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnState {
    /// Behind another turn of its session.
    Waiting,
    /// Its workflow runs.
    Running,
    /// It ended with an answer.
    Saved,
    /// It ended without one.
    Failed,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `calls` calls of the port fail, before they do anything.
    pub fn fail_next(&self, calls: usize, error: fn() -> StoreError) {
        let mut state = self.lock();
        state.faults.extend(std::iter::repeat_n(error, calls));
    }

    /// Sets these preferences of a user and leaves the others.
    pub fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>) {
        let mut state = self.lock();
        state.preferences.entry(user.clone()).or_default().extend(preferences.clone());
    }

    /// What was stored for a workflow.
    pub fn interaction(&self, workflow: &WorkflowId) -> Option<Interaction> {
        self.lock().interactions.get(workflow).cloned()
    }

    /// How many interactions are stored.
    pub fn interactions(&self) -> usize {
        self.lock().interactions.len()
    }

    /// Where a workflow's turn stands, if it was ever heard of.
    pub fn turn(&self, workflow: &WorkflowId) -> Option<TurnState> {
        self.lock().turns.get(workflow).map(|entry| entry.state)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answering(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.lock();
        match state.faults.pop_front() {
            Some(fault) => Err(fault()),
            None => Ok(state),
        }
    }
}

impl State {
    fn open(&mut self, admission: &Admission) {
        if self.turns.contains_key(&admission.workflow_id) {
            return;
        }
        let (state, event) = match &admission.verdict {
            Verdict::Accepted { event } => (TurnState::Waiting, Some(event.clone())),
            Verdict::Refused => (TurnState::Failed, None),
        };
        if state == TurnState::Waiting {
            let place = (admission.input_sequence, admission.workflow_id.clone());
            self.open.entry(admission.session_id.clone()).or_default().insert(place, false);
        }
        let entry = Entry {
            session: admission.session_id.clone(),
            input_sequence: Some(admission.input_sequence),
            state,
            event,
        };
        self.turns.insert(admission.workflow_id.clone(), entry);
    }

    /// Starts the session's first waiting turn if none is running.
    fn start_next(&mut self, session: &SessionId) -> Option<WorkflowId> {
        let open = self.open.get_mut(session)?;
        if open.values().any(|running| *running) {
            return None;
        }
        let mut first = open.first_entry()?;
        first.insert(true);
        let workflow = first.key().1.clone();
        self.turns.get_mut(&workflow)?.state = TurnState::Running;
        Some(workflow)
    }

    fn standing(&self, admission: &Admission) -> Admitted {
        let Some(entry) = self.turns.get(&admission.workflow_id) else { return Admitted::Duplicate };
        if entry.input_sequence.is_some_and(|known| known != admission.input_sequence) {
            return Admitted::Duplicate;
        }
        match (entry.state, &admission.verdict) {
            (TurnState::Running, _) => Admitted::Running,
            (TurnState::Waiting, _) => Admitted::Waiting,
            (TurnState::Failed, Verdict::Refused) => Admitted::Failed,
            (TurnState::Failed, Verdict::Accepted { .. }) | (TurnState::Saved, _) => Admitted::Ended,
        }
    }

    /// Ends a turn unless it has ended, and starts the next one of its session.
    fn end(
        &mut self,
        workflow: &WorkflowId,
        session: &SessionId,
        input_sequence: Option<u64>,
        asked: TurnState,
    ) -> Closed {
        let entry = self.turns.entry(workflow.clone()).or_insert_with(|| Entry {
            session: session.clone(),
            input_sequence,
            state: asked,
            event: None,
        });
        if matches!(entry.state, TurnState::Waiting | TurnState::Running) {
            entry.state = asked;
            entry.event = None;
        }
        let ending = if entry.state == asked { Ending::AsAsked } else { Ending::Otherwise };
        let session = entry.session.clone();
        if let (Some(open), Some(sequence)) = (self.open.get_mut(&session), entry.input_sequence) {
            open.remove(&(sequence, workflow.clone()));
        }
        self.start_next(&session);
        Closed { ending, next: self.released(&session) }
    }

    /// The event of the session's running turn, if that turn had to wait.
    fn released(&self, session: &SessionId) -> Option<Vec<u8>> {
        let ((_, running), _) = self.open.get(session)?.iter().find(|(_, running)| **running)?;
        self.turns.get(running)?.event.clone()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        let mut state = self.answering()?;
        for admission in &batch {
            state.open(admission);
        }
        for admission in &batch {
            let started = state.start_next(&admission.session_id);
            // It is one of this batch, since nothing waits for nobody: whoever asked publishes it.
            if let Some(entry) = started.and_then(|workflow| state.turns.get_mut(&workflow)) {
                entry.event = None;
            }
        }
        Ok(batch.iter().map(|admission| state.standing(admission)).collect())
    }

    async fn context(&self, user: &UserId, session: &SessionId, turns: usize) -> Result<Context, StoreError> {
        let state = self.answering()?;
        let saved = state.history.get(&(session.clone(), user.clone()));
        let latest = saved.into_iter().flat_map(|saved| saved.values().rev().take(turns));
        let mut recent_turns: Vec<Turn> = latest
            .filter_map(|workflow| state.interactions.get(workflow))
            .map(|interaction| Turn {
                workflow_id: interaction.workflow_id.clone(),
                user: interaction.request.user_input.clone(),
                assistant: interaction.response.text.clone(),
                at: interaction.saved_at,
            })
            .collect();
        recent_turns.reverse();
        Ok(Context { preferences: state.preferences.get(user).cloned().unwrap_or_default(), recent_turns })
    }

    async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        let mut state = self.answering()?;
        let workflow = interaction.workflow_id.clone();
        let sequence = interaction.request.input_sequence;
        let ended = state
            .turns
            .get(&workflow)
            .is_some_and(|entry| matches!(entry.state, TurnState::Saved | TurnState::Failed));
        let closed = state.end(&workflow, &interaction.session_id, Some(sequence), TurnState::Saved);
        if !ended {
            let owner = (interaction.session_id.clone(), interaction.user_id.clone());
            state.history.entry(owner).or_default().insert((sequence, workflow.clone()), workflow.clone());
            state.interactions.insert(workflow, interaction);
        }
        Ok(closed)
    }

    async fn fail(
        &self,
        workflow: &WorkflowId,
        session: &SessionId,
        _at: Timestamp,
    ) -> Result<Closed, StoreError> {
        Ok(self.answering()?.end(workflow, session, None, TurnState::Failed))
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.answering().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::store_contract!(async { Box::new(MemoryStore::new()) });
}
