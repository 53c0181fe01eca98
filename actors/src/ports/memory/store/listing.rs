//! Turns as they are listed, and counted.

use throughline_schemas::WorkflowId;

use super::state::{Entry, State};
use crate::ports::store::{ListedTurn, OpenTurns, Tally, TurnState, TurnsQuery};

impl State {
    pub(super) fn latest_turns(&self, query: &TurnsQuery) -> Vec<ListedTurn> {
        let is_wanted = |workflow: &WorkflowId, turn: &Entry| match &query.workflow {
            Some(wanted) => wanted == workflow,
            None => {
                (query.states.is_empty() || query.states.contains(&turn.state))
                    && query.user.as_ref().is_none_or(|user| turn.user.as_ref() == Some(user))
                    && query.session.as_ref().is_none_or(|session| turn.session == *session)
                    && query
                        .after
                        .as_ref()
                        .is_none_or(|(at, after)| (turn.created_at, workflow) < (*at, after))
            }
        };
        let mut turns: Vec<ListedTurn> = self
            .turns
            .iter()
            .filter(|(workflow, turn)| is_wanted(workflow, turn))
            .map(|(workflow, turn)| self.listed(workflow, turn))
            .collect();
        turns.sort_by(|a, b| (b.created_at, &b.workflow_id).cmp(&(a.created_at, &a.workflow_id)));
        turns.truncate(query.limit);
        turns
    }

    fn listed(&self, workflow: &WorkflowId, turn: &Entry) -> ListedTurn {
        let waits = turn.state == TurnState::Waiting;
        ListedTurn {
            workflow_id: workflow.clone(),
            session_id: turn.session.clone(),
            user_id: turn.user.clone(),
            input_sequence: Some(turn.input_sequence),
            state: turn.state,
            waits_for: if waits { self.running_in(&turn.session).cloned() } else { None },
            code: turn.code(),
            superseded_by: turn.superseded_by().cloned(),
            created_at: turn.created_at,
            updated_at: turn.updated_at,
            cost_usd: self.interactions.get(workflow).and_then(|interaction| interaction.cost_usd),
        }
    }

    pub(super) fn open_turns(&self) -> OpenTurns {
        let tally = |state| {
            let turns = || self.turns.values().filter(|turn| turn.state == state);
            Tally { turns: turns().count() as u64, oldest: turns().map(|turn| turn.created_at).min() }
        };
        OpenTurns { waiting: tally(TurnState::Waiting), running: tally(TurnState::Running) }
    }
}
