//! Turns that have run for too long.

use std::{collections::BTreeMap, time::Duration};

use throughline_schemas::{
    EventType, FailureCode, Meta, StageName, StepPath, Subject, TraceParent, WorkflowFailed, decode,
};
use tokio::time::Instant;

use super::{PAGE, SweeperArgs, done, seen::Seen};
use crate::{
    ports::{
        bus::{Latest, Position},
        store::RunningTurn,
    },
    workflow::unreadable,
};

impl SweeperArgs {
    /// Fails turns that have run for too long, which starts the next ones of their sessions.
    pub(super) async fn end_overdue(&self, seen: &mut Seen, position: &Position) -> Result<(), String> {
        let limit = self.settings.turn_limit;
        for (turn, ran) in seen.overdue(Instant::now(), PAGE) {
            let id = &turn.workflow_id;
            if !self.runs(&turn).await? {
                seen.forget(id);
                continue;
            }
            let latest = self.latest(&turn).await?;
            let stage = latest.as_ref().and_then(|latest| StageName::consumer_of(latest.key.event_type));
            let age = self.age(&turn, latest.as_ref(), position).await?;
            // The server's clock may have been set meanwhile; this process's own has not.
            if ran < limit && age.is_none_or(|age| age < limit) {
                seen.set_deadline(id, limit, age);
                continue;
            }
            let cause = self.cause(&turn).await?;
            self.context.interruptions.announce(self.context.bus.as_ref(), id).await;
            let failed = stalled(stage.unwrap_or(StageName::Input), limit);
            done(self.context.fail(&cause, turn.input_sequence, failed, cause.traceparent).await)?;
            seen.forget(id);
        }
        Ok(())
    }

    /// Fails a turn whose last event cannot be read.
    pub(super) async fn end_unreadable(
        &self,
        turn: &RunningTurn,
        stage: StageName,
        error: &str,
    ) -> Result<(), String> {
        let cause = self.cause(turn).await?;
        let failed = unreadable::failed(stage, FailureCode::UnreadableEvent, error, 1);
        done(self.context.fail(&cause, turn.input_sequence, failed, cause.traceparent).await)
    }

    /// How long a turn has run by the server's clock: the only one that every process knows. `None` if the log does not
    /// know its beginning, or the server does not report the time.
    pub(super) async fn age(
        &self,
        turn: &RunningTurn,
        latest: Option<&Latest>,
        position: &Position,
    ) -> Result<Option<Duration>, String> {
        let Some(now) = position.now else { return Ok(None) };
        let began = match latest {
            Some(latest) if latest.key == EventType::InputValidated.into() => Some(latest.stored_at),
            _ => {
                let subject = Subject::new(EventType::InputValidated, &turn.session_id, &turn.workflow_id);
                self.context.bus.stored_at(&subject).await.map_err(|error| error.to_string())?
            }
        };
        Ok(began.map(|began| Duration::from_millis(now.ms_since(began))))
    }

    /// The envelope of what the turn began with; of a turn whose beginning is not known, one that is made up.
    async fn cause(&self, turn: &RunningTurn) -> Result<Meta, String> {
        let opening =
            self.context.store.opening(&turn.workflow_id).await.map_err(|error| error.to_string())?;
        if let Some(event) = opening.and_then(|opening| decode(&opening.event).ok()) {
            return Ok(event.meta);
        }
        Ok(Meta {
            id: turn.workflow_id.event_id(EventType::InputValidated),
            source: format!("throughline/{}", StageName::Input),
            time: turn.started_at,
            workflow_id: turn.workflow_id.clone(),
            session_id: turn.session_id.clone(),
            user_id: turn.user_id.clone(),
            step: StepPath::NONE,
            causation_id: None,
            traceparent: TraceParent::root(u128::from(self.entropy.next_u64()), self.entropy.next_u64()),
            attempt: 1,
        })
    }
}

fn stalled(stage: StageName, limit: Duration) -> WorkflowFailed {
    WorkflowFailed {
        code: FailureCode::Stalled,
        stage,
        message: format!(
            "the turn ran longer than {} s (sessions.turn_limit_ms), and its session goes on without it",
            limit.as_secs()
        ),
        attempts: 1,
        retryable: true,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    }
}
