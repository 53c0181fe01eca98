//! Ends on record: read, forgotten, and put right.

use throughline_schemas::{FailureCode, Timestamp, WorkflowId};

use super::state::{Entry, Failure, State, ended};
use crate::ports::store::{
    Closed, Ending, FailedTurn, FailureRecord, Interaction, KnownEnd, RestoredTurn, TurnState,
};

impl State {
    /// Stores an interaction.
    pub(super) fn keep(&mut self, interaction: Interaction) {
        let workflow = interaction.workflow_id.clone();
        let owner = (interaction.session_id.clone(), interaction.user_id.clone());
        let place = (interaction.request.input_sequence, workflow.clone());
        self.history.entry(owner).or_default().insert(place, workflow.clone());
        self.interactions.insert(workflow, interaction);
    }

    fn delete(&mut self, workflow: &WorkflowId) {
        let Some(interaction) = self.interactions.remove(workflow) else { return };
        let owner = (interaction.session_id, interaction.user_id);
        if let Some(saved) = self.history.get_mut(&owner) {
            saved.remove(&(interaction.request.input_sequence, workflow.clone()));
        }
    }

    pub(super) fn known_end(&self, workflow: &WorkflowId) -> Option<KnownEnd> {
        let turn = self.turns.get(workflow)?;
        Some(match turn.state {
            TurnState::Waiting | TurnState::Running => KnownEnd::Open,
            TurnState::Saved => match self.interactions.get(workflow) {
                Some(interaction) => {
                    let mut kept = interaction.clone();
                    (kept.request.merged, kept.request.redo) = (Vec::new(), None);
                    KnownEnd::Saved(Box::new(kept))
                }
                None => KnownEnd::Forgotten { user_id: turn.user.clone(), session_id: turn.session.clone() },
            },
            TurnState::Failed => KnownEnd::Failed(Box::new(FailedTurn {
                user_id: turn.user.clone(),
                session_id: turn.session.clone(),
                code: turn.code(),
                record: turn.record.as_ref().and_then(|record| FailureRecord::read(record.as_bytes())),
                superseded_by: turn.superseded_by().cloned(),
                ended_at: turn.updated_at,
            })),
        })
    }

    pub(super) fn forget_ended(&mut self, ended_before: Timestamp, most: usize) -> u64 {
        let is_needed = |turn: &Entry| {
            let by = turn.superseded_by().and_then(|by| self.turns.get(by));
            by.is_some_and(Entry::is_open)
        };
        let mut old: Vec<(Timestamp, WorkflowId)> = self
            .turns
            .iter()
            .filter(|(_, turn)| !turn.is_open() && turn.updated_at < ended_before && !is_needed(turn))
            .map(|(workflow, turn)| (turn.updated_at, workflow.clone()))
            .collect();
        old.sort();
        old.truncate(most);
        for (_, workflow) in &old {
            self.turns.remove(workflow);
            self.delete(workflow);
        }
        old.len() as u64
    }

    pub(super) fn restore(&mut self, restored: RestoredTurn) -> Closed {
        let (workflow, mut turn) = match &restored {
            RestoredTurn::Saved(saved) => {
                let owner = (&saved.session_id, &saved.user_id);
                let sequence = saved.request.input_sequence;
                (saved.workflow_id.clone(), ended(TurnState::Saved, owner, sequence, saved.saved_at))
            }
            RestoredTurn::Failed(failing) => {
                let owner = (&failing.session_id, &failing.user_id);
                let turn = ended(TurnState::Failed, owner, failing.input_sequence, failing.at);
                let failure = busy_session(&failing.failure);
                let turn = Entry { failure, record: Some(failing.failure.clone()), ..turn };
                (failing.workflow_id.clone(), turn)
            }
        };
        self.delete(&workflow);
        let before = self.turns.remove(&workflow);
        if let Some(before) = &before {
            turn.created_at = before.created_at;
            if before.input_sequence == turn.input_sequence {
                turn.fingerprint = before.fingerprint;
            }
            // The turn that it is part of may still have to begin.
            if before.failure == turn.failure && turn.failure.is_some() {
                turn.event.clone_from(&before.event);
            }
            if let Some(open) = self.open.get_mut(&before.session) {
                open.remove(&(before.input_sequence, workflow.clone()));
            }
        }
        let (session, at) = (turn.session.clone(), turn.updated_at);
        self.turns.insert(workflow.clone(), turn);
        if let RestoredTurn::Saved(interaction) = restored {
            self.keep(*interaction);
        }
        self.forget_merged(&workflow);
        if let Some(before) = before.filter(|before| before.session != session) {
            self.start_anyway(&before.session, at);
        }
        self.start_anyway(&session, at);
        Closed { ending: Ending::AsAsked, next: self.opening_in(&session) }
    }
}

/// What a failure says of a session that was busy.
fn busy_session(failure: &FailureRecord) -> Option<Failure> {
    let by = || FailureRecord::read(failure.as_bytes())?.superseded_by;
    if failure.code() == FailureCode::SessionBusy {
        Some(Failure::Rejected)
    } else if failure.code() == FailureCode::NotSessionOwner {
        Some(Failure::NotOwner)
    } else if failure.code() == FailureCode::TooManyOpen {
        Some(Failure::TooManyOpen)
    } else if failure.code() == FailureCode::Interrupted {
        by().map(Failure::InterruptedBy)
    } else if failure.code() == FailureCode::Merged {
        by().map(Failure::MergedInto)
    } else {
        None
    }
}
