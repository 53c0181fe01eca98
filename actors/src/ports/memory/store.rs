//! A store that forgets everything when it is dropped.

mod ends;
mod held;
mod listing;
mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Map, Value};
use throughline_schemas::{
    SessionId, Timestamp, UserId, WorkflowId,
    event::context::{Context, Turn},
};

pub use crate::ports::store::TurnState;
use crate::ports::store::{
    Admission, Admitted, Closed, EndedTurn, Failing, HeldQuery, HeldStarted, Interaction, KnownEnd,
    ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery, RunningTurn, Store, StoreError,
    TurnsQuery,
};
use state::{Entry, State, ended, waits};

/// The fake. Like the real ones it keeps every rule of [`Store`]; unlike them it can be made to fail.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

/// What a store was like once.
#[derive(Debug, Clone)]
pub struct Backup(State);

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

    /// Lets the calls that were still to fail succeed.
    pub fn mend(&self) {
        self.lock().faults.clear();
    }

    /// Sets these preferences of a user and leaves the others.
    pub fn set_preferences(&self, user: &UserId, preferences: &Map<String, Value>) {
        let mut state = self.lock();
        state.preferences.entry(user.clone()).or_default().extend(preferences.clone());
    }

    /// Deletes these preferences of a user, or all; says how many.
    pub fn delete_preferences(&self, user: &UserId, names: Option<&[String]>) -> u64 {
        let mut state = self.lock();
        let Some(known) = state.preferences.get_mut(user) else { return 0 };
        let before = known.len();
        known.retain(|name, _| names.is_some_and(|names| !names.contains(name)));
        (before - known.len()) as u64
    }

    /// Everything that is in it now.
    pub fn backup(&self) -> Backup {
        Backup(self.lock().clone())
    }

    /// A backup takes the place of everything.
    pub fn put_back(&self, backup: &Backup) {
        *self.lock() = backup.0.clone();
    }

    /// What was stored for a workflow.
    pub fn interaction(&self, workflow: &WorkflowId) -> Option<Interaction> {
        self.lock().interactions.get(workflow).cloned()
    }

    /// How many interactions are stored.
    pub fn interactions(&self) -> usize {
        self.lock().interactions.len()
    }

    /// Where a workflow's turn stands, if it is known.
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

#[async_trait]
impl Store for MemoryStore {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        let mut state = self.answering()?;
        // A run of inputs that only want to wait is sorted before one of them starts.
        for run in batch.chunk_by(|one, next| waits(one) && waits(next)) {
            let firsts = state.firsts(run);
            for admission in run {
                state.open(admission, &firsts);
            }
            state.start_admitted(run);
        }
        Ok(batch.iter().map(|admission| state.admitted(admission)).collect())
    }

    async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        Ok(self.answering()?.start_held(&query))
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
        let ended_before = state.turns.get(&workflow).is_some_and(|entry| entry.state.is_end());
        let owner = (&interaction.session_id, &interaction.user_id);
        let unknown = ended(TurnState::Saved, owner, sequence, interaction.saved_at);
        let closed = state.end(&workflow, unknown, interaction.saved_at);
        if !ended_before {
            state.keep(interaction);
        }
        Ok(closed)
    }

    async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        let owner = (&failing.session_id, &failing.user_id);
        let unknown = ended(TurnState::Failed, owner, failing.input_sequence, failing.at);
        let unknown = Entry { record: Some(failing.failure), ..unknown };
        Ok(self.answering()?.end(&failing.workflow_id, unknown, failing.at))
    }

    async fn running(&self, query: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        let state = self.answering()?;
        let mut running: Vec<RunningTurn> = state
            .turns
            .iter()
            .filter(|(_, turn)| turn.state == TurnState::Running)
            .filter_map(|(workflow, turn)| {
                Some(RunningTurn {
                    workflow_id: workflow.clone(),
                    session_id: turn.session.clone(),
                    user_id: turn.user.clone()?,
                    input_sequence: turn.input_sequence,
                    started_at: turn.updated_at,
                })
            })
            .filter(|turn| turn.started_at <= query.started_by)
            .filter(|turn| {
                let place = (turn.started_at, &turn.workflow_id);
                query.after.as_ref().is_none_or(|(at, workflow)| place > (*at, workflow))
            })
            .collect();
        running.sort_by(|a, b| (a.started_at, &a.workflow_id).cmp(&(b.started_at, &b.workflow_id)));
        running.truncate(query.limit);
        Ok(running)
    }

    async fn opening(&self, workflow: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        let state = self.answering()?;
        let runs = state.turns.get(workflow).is_some_and(|turn| turn.state == TurnState::Running);
        Ok(if runs { state.opening_of(workflow) } else { None })
    }

    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        let state = self.answering()?;
        Ok(places.iter().map(|(session, sequence)| state.ended_before(session, *sequence)).collect())
    }

    async fn end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        Ok(self.answering()?.known_end(workflow))
    }

    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        let state = self.answering()?;
        let open = state.turns.values().filter(|turn| turn.is_open());
        Ok(open.map(|turn| turn.input_sequence).min())
    }

    async fn forget_ended(&self, ended_before: Timestamp, most: usize) -> Result<u64, StoreError> {
        Ok(self.answering()?.forget_ended(ended_before, most))
    }

    async fn restore(&self, ended: RestoredTurn) -> Result<Closed, StoreError> {
        Ok(self.answering()?.restore(ended))
    }

    async fn latest_turns(&self, query: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        Ok(self.answering()?.latest_turns(&query))
    }

    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        Ok(self.answering()?.open_turns())
    }

    async fn mark(&self) -> Result<Mark, StoreError> {
        Ok(Mark { sequence: self.answering()?.mark, server: String::new() })
    }

    async fn set_mark(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let mut state = self.answering()?;
        if state.mark == from {
            state.mark = to;
        }
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.answering().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::store_contract!(async { Some(Box::new(MemoryStore::new())) });
}
