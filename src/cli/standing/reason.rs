//! Why a workflow has not ended: for which one it waits, or what it does.

use std::time::Duration;

use throughline_actors::ports::store::{OpenTurns, StoreError, TurnState, TurnsQuery};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};

use super::{ID_CHARS, Standing, Step, look_up_steps, span};
use crate::{
    app::open_onlooker,
    bus::nats::NatsBus,
    cli::timeline::clean,
    config::{Config, Env},
    storage::Onlooker,
};

/// How long opening the database may take: what it tells is worth no longer wait.
const OPEN_LIMIT: Duration = Duration::from_secs(3);

/// Who can tell why workflows have not ended.
pub(in crate::cli) struct Reasons<'a> {
    onlooker: Onlooker,
    bus: &'a NatsBus,
}

impl<'a> Reasons<'a> {
    /// `None` where the database cannot be looked at: a user who publishes or reads events need not have one.
    pub(in crate::cli) async fn open(config: &Config, env: &Env, bus: &'a NatsBus) -> Option<Self> {
        match tokio::time::timeout(OPEN_LIMIT, open_onlooker(config, env)).await {
            Ok(Ok(onlooker)) => Some(Self { onlooker, bus }),
            Ok(Err(error)) => {
                tracing::debug!(%error, "why workflows have not ended is not known");
                None
            }
            Err(_) => None,
        }
    }

    /// Why this one has not ended; `None` if it has, or is not known.
    pub(in crate::cli) async fn of(&self, workflow: &WorkflowId) -> Result<Option<Reason>, StoreError> {
        let Some(mut standing) = self.look(workflow).await? else { return Ok(None) };
        if standing.turn.state.is_end() {
            return Ok(None);
        }
        let mut ahead = match &standing.turn.waits_for {
            Some(ahead) => self.look(ahead).await?.filter(|ahead| ahead.turn.state == TurnState::Running),
            None => None,
        };
        look_up_steps(self.bus, std::slice::from_mut(ahead.as_mut().unwrap_or(&mut standing))).await;
        Ok(Some(Reason { standing, ahead }))
    }

    /// How many turns are open.
    pub(in crate::cli) async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        self.onlooker.open_turns().await
    }

    /// Why the oldest workflow that stands so has not ended; it was admitted then.
    pub(in crate::cli) async fn of_oldest(
        &self,
        state: TurnState,
        oldest: Timestamp,
    ) -> Result<Option<Reason>, StoreError> {
        // Lists begin with the newest; what comes behind the next millisecond begins with those of this one.
        let after = (Timestamp::from_unix_ms(oldest.unix_ms() + 1), WorkflowId::unknown());
        let query = TurnsQuery { states: vec![state], after: Some(after), limit: 1, ..TurnsQuery::default() };
        match self.onlooker.latest_turns(&query).await?.first() {
            Some(turn) => self.of(&turn.workflow_id).await,
            None => Ok(None),
        }
    }

    async fn look(&self, workflow: &WorkflowId) -> Result<Option<Standing>, StoreError> {
        let found = self.onlooker.latest_turns(&TurnsQuery::of(workflow.clone())).await?;
        Ok(found.into_iter().next().map(Standing::new))
    }

    pub(in crate::cli) fn close(self) {
        self.onlooker.close();
    }
}

/// Why a workflow has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Reason {
    standing: Standing,
    /// The workflow that it waits for, which runs.
    ahead: Option<Standing>,
}

impl Reason {
    /// For a person.
    pub(in crate::cli) fn words(&self, now: Timestamp) -> String {
        let Some(ahead) = &self.ahead else { return self.standing.words(now) };
        let id = clean(ahead.turn.workflow_id.as_str(), ID_CHARS);
        let ran = span(now.ms_since(ahead.turn.updated_at));
        match ahead.step {
            Some(Step { stage, .. }) => format!("waits for {id}, which has run for {ran} and is in {stage}"),
            None => format!("waits for {id}, which has run for {ran}"),
        }
    }

    /// Whether it waits for another workflow.
    pub(in crate::cli) fn is_waiting(&self) -> bool {
        self.standing.turn.state == TurnState::Waiting
    }

    /// Whether it is about a workflow of this user in this session.
    pub(in crate::cli) fn is_of(&self, user: &UserId, session: &SessionId) -> bool {
        self.standing.turn.user_id.as_ref() == Some(user) && self.standing.turn.session_id == *session
    }

    /// Whether its workflow is one of this session.
    pub(in crate::cli) fn is_in(&self, session: &str) -> bool {
        self.standing.turn.session_id.as_str() == session
    }

    /// The same but for the time that has passed.
    pub(in crate::cli) fn is_as(&self, other: &Self) -> bool {
        let cause = |reason: &Self| {
            let ahead = reason.ahead.as_ref().unwrap_or(&reason.standing);
            (reason.standing.turn.state, ahead.turn.workflow_id.clone(), ahead.step.map(|step| step.stage))
        };
        cause(self) == cause(other)
    }

    /// The workflow.
    pub(in crate::cli) fn workflow(&self) -> String {
        clean(self.standing.turn.workflow_id.as_str(), ID_CHARS)
    }

    /// Whose workflow it is.
    pub(in crate::cli) fn whose(&self) -> String {
        let turn = &self.standing.turn;
        let user = turn.user_id.as_ref();
        let user = user.map_or_else(String::new, |user| format!("  user {}", clean(user.as_str(), ID_CHARS)));
        let session = clean(turn.session_id.as_str(), ID_CHARS);
        format!("workflow {}{user}  session {session}", self.workflow())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::StageName;

    use super::*;
    use crate::cli::standing::tests::{at, turn};

    #[test]
    fn a_reason_names_the_workflow_ahead_and_changes_with_what_that_one_does() {
        let in_stage = |stage| Standing {
            step: Some(Step { stage, since: at(3_000) }),
            turn: turn("qq-1", TurnState::Running),
        };
        let waits = |ahead| Reason { standing: Standing::new(turn("qq-2", TurnState::Waiting)), ahead };
        let asking = waits(Some(in_stage(StageName::Generation)));
        assert_eq!(asking.words(at(14_000)), "waits for qq-1, which has run for 12 s and is in generation");
        assert_eq!(asking.whose(), "workflow qq-2  user demo  session s1");
        let unknown = waits(Some(Standing::new(turn("qq-1", TurnState::Running))));
        assert_eq!(unknown.words(at(14_000)), "waits for qq-1, which has run for 12 s");
        let runs = Reason { standing: in_stage(StageName::External), ahead: None };
        assert_eq!(runs.words(at(14_000)), "runs: external for 11 s");
        let saving = waits(Some(in_stage(StageName::Persistence)));
        for (a, b) in [(&asking, &saving), (&asking, &unknown), (&asking, &runs)] {
            assert!(!a.is_as(b));
        }
        assert!(asking.is_as(&asking.clone()) && asking.is_waiting() && !runs.is_waiting());
    }
}
