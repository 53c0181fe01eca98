//! What is on record: ends, lists, counts; forgetting, and putting ends right.

use serde_json::Value;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use throughline_actors::ports::store::{
    Closed, Ending, KnownEnd, ListedTurn, OpenTurns, Opening, RestoredTurn, TurnsQuery,
};
use throughline_schemas::{Metadata, SessionId, Timestamp, UserId, WorkflowId};
use time::OffsetDateTime;

use super::{
    apply::row,
    connection::Statement,
    nul::{from_stored, json_from_stored},
};
use crate::storage::{
    context_rows::undecodable,
    kept::{self, EndRow, ListRow, Row, superseded},
    text::integer,
};

const END: &str = "SELECT
        t.state, t.user_id, t.session_id, t.failure_code, t.failure_record, t.superseded_by, t.updated_at,
        i.workflow_id, i.interaction_id, i.user_id, i.session_id, i.input, i.response, i.provider, i.model,
        i.finish_reason, i.input_tokens, i.cached_input_tokens, i.output_tokens, i.reasoning_tokens, i.cost_usd::text,
        i.metadata::text, i.input_sequence, i.received_at, i.generated_at, i.created_at, i.more::text
    FROM turns AS t LEFT JOIN interactions AS i
        ON i.namespace = t.namespace AND i.workflow_id = t.workflow_id AND t.state = 'saved'
    WHERE t.namespace = $1 AND t.workflow_id = $2";

/// Columns before those of the interaction.
const INTERACTION: usize = 7;

const RESTORE: &str = "SELECT opening, merged FROM throughline_restore($1, $2::json, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

const LIST: &str = "SELECT
        workflow_id, session_id, user_id, input_sequence, state, waits_for, failure_code, superseded_by, created_at,
        updated_at, cost_usd
    FROM throughline_list($1, $2, $3, $4, $5, coalesce($6, 'infinity'), coalesce($7, ''), $8)";

/// How did this workflow end?
pub(super) struct AskEnd<'a>(pub(super) &'a str, pub(super) &'a WorkflowId);

impl Statement for AskEnd<'_> {
    type Answer = Option<KnownEnd>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Option<KnownEnd>, sqlx::Error> {
        let end = sqlx::query(END).bind(self.0).bind(self.1.as_str());
        let Some(row) = end.fetch_optional(connection).await? else { return Ok(None) };
        let turn = EndRow {
            state: row.try_get(0)?,
            user: row.try_get(1)?,
            session: row.try_get(2)?,
            code: row.try_get(3)?,
            record: row.try_get(4)?,
            superseded_by: row.try_get(5)?,
            updated_at: at(&row, 6)?,
        };
        let interaction = match row.try_get(INTERACTION)? {
            Some(workflow) => Some(interaction(workflow, &row)?.interaction()?),
            None => None,
        };
        turn.end(interaction).map(Some)
    }
}

fn interaction(workflow: String, row: &PgRow) -> Result<Row, sqlx::Error> {
    let column = |n: usize| INTERACTION + n;
    let text = |n: usize| row.try_get(column(n)).map(from_stored);
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(undecodable);
    let metadata: Metadata = serde_json::from_str(row.try_get(column(14))?).map_err(undecodable)?;
    let more = row.try_get::<Option<&str>, _>(column(19))?.map(json).transpose()?;
    Ok(Row {
        workflow,
        id: row.try_get(column(1))?,
        user: row.try_get(column(2))?,
        session: row.try_get(column(3))?,
        input: text(4)?,
        response: text(5)?,
        provider: text(6)?,
        model: text(7)?,
        finish_reason: row.try_get(column(8))?,
        tokens: [
            row.try_get(column(9))?,
            row.try_get(column(10))?,
            row.try_get(column(11))?,
            row.try_get(column(12))?,
        ],
        cost_usd: row.try_get(column(13))?,
        metadata: metadata.map_texts(from_stored),
        input_sequence: row.try_get(column(15))?,
        received_at: at(row, column(16))?,
        generated_at: at(row, column(17))?,
        saved_at: at(row, column(18))?,
        more: more.as_ref().map(json_from_stored),
    })
}

/// Record this end as it was published.
pub(super) struct Restore<'a>(pub(super) &'a str, pub(super) &'a RestoredTurn);

impl Statement for Restore<'_> {
    type Answer = Closed;

    async fn send(&self, connection: &mut PgConnection) -> Result<Closed, sqlx::Error> {
        let Self(namespace, restored) = self;
        let restore = sqlx::query(RESTORE).bind(*namespace);
        let restore = match restored {
            RestoredTurn::Saved(saved) => {
                let interaction = serde_json::to_string(&row(namespace, saved)?);
                restore
                    .bind(interaction.map_err(|error| sqlx::Error::Encode(error.into()))?)
                    .bind(saved.workflow_id.as_str())
                    .bind(saved.session_id.as_str())
                    .bind(saved.user_id.as_str())
                    .bind(integer(saved.request.input_sequence))
                    .bind("saved")
                    .bind(OffsetDateTime::from(saved.saved_at))
                    .bind(None::<&str>)
                    .bind(None::<String>)
                    .bind(None::<&str>)
                    .bind(None::<&[u8]>)
            }
            RestoredTurn::Failed(failing) => {
                let (failure, by) = superseded(&failing.failure);
                restore
                    .bind(None::<String>)
                    .bind(failing.workflow_id.as_str())
                    .bind(failing.session_id.as_str())
                    .bind(failing.user_id.as_str())
                    .bind(integer(failing.input_sequence))
                    .bind("failed")
                    .bind(OffsetDateTime::from(failing.at))
                    .bind(failure)
                    .bind(by.map(|by| by.to_string()))
                    .bind(failing.failure.code().as_str())
                    .bind(failing.failure.as_bytes())
            }
        };
        let next = match restore.fetch_optional(connection).await? {
            Some(row) => Some(Opening { event: row.try_get(0)?, merged: row.try_get(1)? }),
            None => None,
        };
        Ok(Closed { ending: Ending::AsAsked, next })
    }
}

/// Forget turns that ended before an instant.
pub(super) struct Forget<'a> {
    pub(super) namespace: &'a str,
    pub(super) ended_before: Timestamp,
    pub(super) most: usize,
}

impl Statement for Forget<'_> {
    type Answer = u64;

    async fn send(&self, connection: &mut PgConnection) -> Result<u64, sqlx::Error> {
        let forget = sqlx::query_scalar("SELECT throughline_forget($1, $2, $3)")
            .bind(self.namespace)
            .bind(OffsetDateTime::from(self.ended_before))
            .bind(integer(self.most as u64));
        kept::sequence(forget.fetch_one(connection).await?)
    }
}

/// What is the smallest input sequence of all open turns?
pub(super) struct AskOldest<'a>(pub(super) &'a str);

impl Statement for AskOldest<'_> {
    type Answer = Option<u64>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Option<u64>, sqlx::Error> {
        let oldest = sqlx::query_scalar("SELECT throughline_oldest_open($1)").bind(self.0);
        let oldest: Option<i64> = oldest.fetch_one(connection).await?;
        oldest.map(kept::sequence).transpose()
    }
}

/// How many turns are open?
pub(super) struct AskOpen<'a>(pub(super) &'a str);

impl Statement for AskOpen<'_> {
    type Answer = OpenTurns;

    async fn send(&self, connection: &mut PgConnection) -> Result<OpenTurns, sqlx::Error> {
        let open = sqlx::query("SELECT state, open, oldest FROM throughline_open($1)").bind(self.0);
        let rows = open.fetch_all(connection).await?;
        kept::open_turns(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, at(row, 2)?))))
    }
}

/// Which turns are the latest?
pub(super) struct List<'a>(pub(super) &'a str, pub(super) &'a TurnsQuery);

impl Statement for List<'_> {
    type Answer = Vec<ListedTurn>;

    async fn send(&self, connection: &mut PgConnection) -> Result<Vec<ListedTurn>, sqlx::Error> {
        let Self(namespace, query) = self;
        let after = query.after.as_ref();
        let rows = sqlx::query(LIST)
            .bind(*namespace)
            .bind(query.workflow.as_ref().map(WorkflowId::as_str))
            .bind(kept::states(&query.states))
            .bind(query.user.as_ref().map(UserId::as_str))
            .bind(query.session.as_ref().map(SessionId::as_str))
            .bind(after.map(|(at, _)| OffsetDateTime::from(*at)))
            .bind(after.map(|(_, workflow)| workflow.as_str()))
            .bind(integer(query.limit as u64))
            .fetch_all(connection)
            .await?;
        rows.iter().map(listed).collect()
    }
}

fn listed(row: &PgRow) -> Result<ListedTurn, sqlx::Error> {
    ListRow {
        workflow: row.try_get(0)?,
        session: row.try_get(1)?,
        user: row.try_get(2)?,
        input_sequence: row.try_get(3)?,
        state: row.try_get(4)?,
        waits_for: row.try_get(5)?,
        code: row.try_get(6)?,
        superseded_by: row.try_get(7)?,
        created_at: at(row, 8)?,
        updated_at: at(row, 9)?,
        cost_usd: row.try_get(10)?,
    }
    .turn()
}

fn at(row: &PgRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    row.try_get::<OffsetDateTime, _>(column).map(Timestamp::from)
}
