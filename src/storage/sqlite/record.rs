//! What is on record: ends, lists, counts.

use serde_json::Value;
use sqlx::{Row as _, SqlitePool, sqlite::SqliteRow};
use throughline_actors::ports::store::{KnownEnd, ListedTurn, OpenTurns, TurnsQuery};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};

use super::turns::Reading;
use crate::storage::{
    context_rows::undecodable,
    kept::{self, EndRow, ListRow, Row},
    text::{instant, integer, parse_instant},
};

/// Columns of `end.sql` before those of the interaction.
const INTERACTION: usize = 7;

pub(super) async fn end(
    (readers, namespace): Reading<'_>,
    workflow: &WorkflowId,
) -> Result<Option<KnownEnd>, sqlx::Error> {
    let end = sqlx::query(include_str!("end.sql")).bind(workflow.as_str()).bind(namespace);
    let Some(row) = end.fetch_optional(readers).await? else { return Ok(None) };
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

fn interaction(workflow: String, row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let column = |n: usize| INTERACTION + n;
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(undecodable);
    Ok(Row {
        workflow,
        id: row.try_get(column(1))?,
        user: row.try_get(column(2))?,
        session: row.try_get(column(3))?,
        input: row.try_get(column(4))?,
        response: row.try_get(column(5))?,
        provider: row.try_get(column(6))?,
        model: row.try_get(column(7))?,
        finish_reason: row.try_get(column(8))?,
        tokens: [
            row.try_get(column(9))?,
            row.try_get(column(10))?,
            row.try_get(column(11))?,
            row.try_get(column(12))?,
        ],
        cost_usd: row.try_get(column(13))?,
        metadata: serde_json::from_str(row.try_get(column(14))?).map_err(undecodable)?,
        input_sequence: row.try_get(column(15))?,
        received_at: at(row, column(16))?,
        generated_at: at(row, column(17))?,
        saved_at: at(row, column(18))?,
        more: row.try_get::<Option<&str>, _>(column(19))?.map(json).transpose()?,
    })
}

pub(super) async fn oldest_open((readers, namespace): Reading<'_>) -> Result<Option<u64>, sqlx::Error> {
    let oldest = sqlx::query_scalar(include_str!("oldest_open.sql")).bind(namespace);
    oldest.fetch_one(readers).await.and_then(|oldest: Option<i64>| oldest.map(kept::sequence).transpose())
}

pub(in crate::storage) async fn open_turns(
    (readers, namespace): Reading<'_>,
) -> Result<OpenTurns, sqlx::Error> {
    let rows = sqlx::query(include_str!("open_turns.sql")).bind(namespace).fetch_all(readers).await?;
    kept::open_turns(rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, at(row, 2)?))))
}

/// Whether the tables have what lists are made of.
pub(in crate::storage) async fn has_lists(readers: &SqlitePool) -> Result<bool, sqlx::Error> {
    let column = "SELECT count(*) FROM pragma_table_info('turns') WHERE name = 'failure_code'";
    let columns: i64 = sqlx::query_scalar(column).fetch_one(readers).await?;
    Ok(columns > 0)
}

pub(in crate::storage) async fn latest_turns(
    (readers, namespace): Reading<'_>,
    query: &TurnsQuery,
) -> Result<Vec<ListedTurn>, sqlx::Error> {
    let rows = if let Some(workflow) = &query.workflow {
        let one = sqlx::query(include_str!("list_one.sql")).bind(workflow.as_str()).bind(namespace);
        one.fetch_all(readers).await?
    } else {
        let sql = match (&query.session, &query.user) {
            (Some(_), _) => include_str!("list_session.sql"),
            (None, Some(_)) => include_str!("list_user.sql"),
            (None, None) => include_str!("list_all.sql"),
        };
        let (at, after) = query.after.as_ref().map(|(at, after)| (instant(*at), after.as_str())).unzip();
        sqlx::query(sql)
            .bind(Value::from(kept::states(&query.states)).to_string())
            .bind(at)
            .bind(after)
            .bind(integer(query.limit as u64))
            .bind(namespace)
            .bind(query.user.as_ref().map(UserId::as_str))
            .bind(query.session.as_ref().map(SessionId::as_str))
            .fetch_all(readers)
            .await?
    };
    rows.iter().map(listed).collect()
}

fn listed(row: &SqliteRow) -> Result<ListedTurn, sqlx::Error> {
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

fn at(row: &SqliteRow, column: usize) -> Result<Timestamp, sqlx::Error> {
    parse_instant(row.try_get(column)?).map_err(undecodable)
}
