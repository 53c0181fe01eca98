//! What the sweeper and admission ask about turns.

use sqlx::{PgConnection, Row, postgres::PgRow};
use throughline_actors::ports::store::{EndedTurn, Opening, RunningQuery, RunningTurn};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};
use time::OffsetDateTime;

use super::connection::Statement;
use crate::storage::{context_rows::undecodable, text::integer};

const RUNNING: &str = "SELECT workflow_id, session_id, user_id, input_sequence, updated_at
    FROM turns
    WHERE namespace = $5 AND state = 'running' AND updated_at <= $1
        AND (updated_at, workflow_id) > (coalesce($2, '-infinity'), coalesce($3, ''))
    ORDER BY updated_at, workflow_id
    LIMIT $4";

/// The turn itself first, then what was merged into it, in stream order.
const OPENING: &str = "SELECT t.event
    FROM turns AS r JOIN turns AS t ON t.namespace = r.namespace
        AND (t.workflow_id = r.workflow_id OR t.superseded_by = r.workflow_id AND t.failure = 'merged')
    WHERE r.namespace = $2 AND r.workflow_id = $1 AND r.state = 'running' AND t.event IS NOT NULL
    ORDER BY t.workflow_id <> r.workflow_id, t.input_sequence";

const ENDED_BEFORE: &str = "SELECT q.n, e.workflow_id, e.updated_at, e.state = 'saved'
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS q(session, sequence, n) CROSS JOIN LATERAL (
        SELECT t.workflow_id, t.updated_at, t.state FROM turns AS t
        WHERE t.namespace = $3 AND t.session_id = q.session AND t.input_sequence < q.sequence
            AND t.state IN ('saved', 'failed') AND t.failure IS NULL
        ORDER BY t.input_sequence DESC
        LIMIT 1
    ) AS e";

/// Which turns run?
pub(super) struct Running<'a>(pub(super) &'a str, pub(super) &'a RunningQuery);

impl Statement for Running<'_> {
    type Answer = Vec<RunningTurn>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<RunningTurn>, sqlx::Error> {
        let after = self.1.after.as_ref();
        let rows = sqlx::query(RUNNING)
            .bind(OffsetDateTime::from(self.1.started_by))
            .bind(after.map(|(at, _)| OffsetDateTime::from(*at)))
            .bind(after.map(|(_, workflow)| workflow.as_str()))
            .bind(integer(self.1.limit as u64))
            .bind(self.0)
            .fetch_all(connection)
            .await?;
        rows.iter().map(running_turn).collect()
    }
}

fn running_turn(row: &PgRow) -> Result<RunningTurn, sqlx::Error> {
    Ok(RunningTurn {
        workflow_id: WorkflowId::new(row.try_get::<&str, _>(0)?).map_err(undecodable)?,
        session_id: SessionId::new(row.try_get::<&str, _>(1)?).map_err(undecodable)?,
        user_id: UserId::new(row.try_get::<&str, _>(2)?).map_err(undecodable)?,
        input_sequence: u64::try_from(row.try_get::<i64, _>(3)?).map_err(undecodable)?,
        started_at: Timestamp::from(row.try_get::<OffsetDateTime, _>(4)?),
    })
}

/// What did this turn begin with, if it runs?
pub(super) struct AskOpening<'a>(pub(super) &'a str, pub(super) &'a WorkflowId);

impl Statement for AskOpening<'_> {
    type Answer = Option<Opening>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Option<Opening>, sqlx::Error> {
        let rows = sqlx::query(OPENING).bind(self.1.as_str()).bind(self.0).fetch_all(connection).await?;
        let events = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?;
        let mut events = events.into_iter();
        Ok(events.next().map(|event| Opening { event, merged: events.collect() }))
    }
}

/// Which turns ended before these places?
pub(super) struct AskEndedBefore<'a>(pub(super) &'a str, pub(super) &'a [(SessionId, u64)]);

impl Statement for AskEndedBefore<'_> {
    type Answer = Vec<Option<EndedTurn>>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<Option<EndedTurn>>, sqlx::Error> {
        let sessions: Vec<&str> = self.1.iter().map(|(session, _)| session.as_str()).collect();
        let sequences: Vec<i64> = self.1.iter().map(|(_, sequence)| integer(*sequence)).collect();
        let rows = sqlx::query(ENDED_BEFORE)
            .bind(sessions)
            .bind(sequences)
            .bind(self.0)
            .fetch_all(connection)
            .await?;
        let mut ended = vec![None; self.1.len()];
        for row in rows {
            // They are counted from one.
            let place = usize::try_from(row.try_get::<i64, _>(0)? - 1).map_err(undecodable)?;
            if let Some(ended) = ended.get_mut(place) {
                *ended = Some(EndedTurn {
                    workflow_id: WorkflowId::new(row.try_get::<&str, _>(1)?).map_err(undecodable)?,
                    saved: row.try_get(3)?,
                    ended_at: Timestamp::from(row.try_get::<OffsetDateTime, _>(2)?),
                });
            }
        }
        Ok(ended)
    }
}
