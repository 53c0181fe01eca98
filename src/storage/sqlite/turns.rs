//! What is asked about turns, by the sweeper and once for each batch of inputs: so it goes straight to a reader.

use sqlx::{Row, SqlitePool, sqlite::SqliteRow};
use throughline_actors::ports::store::{EndedTurn, Opening, RunningQuery, RunningTurn};
use throughline_schemas::{SessionId, UserId, WorkflowId};

use crate::storage::{
    context_rows::undecodable,
    text::{instant, integer, parse_instant},
};

pub(super) const OPENING: &str = include_str!("opening.sql");

/// Where is read, and of which namespace.
pub(in crate::storage) type Reading<'a> = (&'a SqlitePool, &'a str);

pub(super) async fn running(
    (readers, namespace): Reading<'_>,
    query: &RunningQuery,
) -> Result<Vec<RunningTurn>, sqlx::Error> {
    let (started, workflow) =
        query.after.as_ref().map(|(at, workflow)| (instant(*at), workflow.as_str())).unzip();
    let rows = sqlx::query(include_str!("running.sql"))
        .bind(instant(query.started_by))
        .bind(started)
        .bind(workflow)
        .bind(integer(query.limit as u64))
        .bind(namespace)
        .fetch_all(readers)
        .await?;
    let decode = |row: &SqliteRow| {
        let sequence: i64 = row.try_get(3)?;
        Ok(RunningTurn {
            workflow_id: WorkflowId::new(row.try_get::<String, _>(0)?).map_err(undecodable)?,
            session_id: SessionId::new(row.try_get::<String, _>(1)?).map_err(undecodable)?,
            user_id: UserId::new(row.try_get::<String, _>(2)?).map_err(undecodable)?,
            input_sequence: u64::try_from(sequence).map_err(undecodable)?,
            started_at: parse_instant(row.try_get(4)?).map_err(undecodable)?,
        })
    };
    rows.iter().map(decode).collect()
}

pub(super) async fn opening(
    (readers, namespace): Reading<'_>,
    workflow: &WorkflowId,
) -> Result<Option<Opening>, sqlx::Error> {
    let opening = sqlx::query(OPENING).bind(workflow.as_str()).bind(namespace);
    as_opening(&opening.fetch_all(readers).await?)
}

/// The rows of [`OPENING`].
pub(super) fn as_opening(rows: &[SqliteRow]) -> Result<Option<Opening>, sqlx::Error> {
    let mut events = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Vec<u8>>, _>>()?.into_iter();
    Ok(events.next().map(|event| Opening { event, merged: events.collect() }))
}

pub(super) async fn ended_before(
    (readers, namespace): Reading<'_>,
    places: &[(SessionId, u64)],
) -> Result<Vec<Option<EndedTurn>>, sqlx::Error> {
    let asked: Vec<_> =
        places.iter().map(|(session, sequence)| (session.as_str(), integer(*sequence))).collect();
    let asked = serde_json::to_string(&asked).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let rows =
        sqlx::query(include_str!("ended_before.sql")).bind(asked).bind(namespace).fetch_all(readers).await?;
    let mut ended = vec![None; places.len()];
    for row in rows {
        let place = usize::try_from(row.try_get::<i64, _>(0)?).map_err(undecodable)?;
        if let Some(ended) = ended.get_mut(place) {
            *ended = Some(EndedTurn {
                workflow_id: WorkflowId::new(row.try_get::<String, _>(1)?).map_err(undecodable)?,
                saved: row.try_get(3)?,
                ended_at: parse_instant(row.try_get(2)?).map_err(undecodable)?,
            });
        }
    }
    Ok(ended)
}
