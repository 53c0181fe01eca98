//! Starting turns that were held, within the transaction of a batch.

use sqlx::{Row, SqliteConnection};
use throughline_actors::ports::store::{HELD_USERS, HeldQuery, HeldStarted, Opening, Share};
use throughline_schemas::UserId;

use super::{batch::json, turns::Reading};
use crate::storage::{
    context_rows::undecodable,
    text::{instant, integer},
};

const USERS: &str = include_str!("held_users.sql");
const START: &str = include_str!("held_start.sql");
const OPENINGS: &str = include_str!("held_openings.sql");
const LEFT: &str = include_str!("held_left.sql");

/// Whether any turn is held.
pub(super) async fn is_any((readers, namespace): Reading<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(LEFT).bind(namespace).fetch_one(readers).await
}

/// Starts as many as there is room for.
pub(super) async fn start(
    query: &HeldQuery,
    namespace: &str,
    connection: &mut SqliteConnection,
) -> Result<HeldStarted, sqlx::Error> {
    let users: Vec<String> = sqlx::query_scalar(USERS)
        .bind(namespace)
        .bind(query.behind.as_ref().map_or("", UserId::as_str))
        .bind(integer(HELD_USERS as u64))
        .fetch_all(&mut *connection)
        .await?;
    let started: Vec<String> = sqlx::query_scalar(START)
        .bind(namespace)
        .bind(json(&users)?)
        .bind(query.share.map(|Share { each, .. }| i64::from(each)))
        .bind(query.share.map(|Share { all, .. }| i64::from(all)))
        .bind(integer(query.most as u64))
        .bind(instant(query.at))
        .fetch_all(&mut *connection)
        .await?;
    let openings =
        if started.is_empty() { Vec::new() } else { openings(&started, namespace, connection).await? };
    let left = sqlx::query_scalar(LEFT).bind(namespace).fetch_one(&mut *connection).await?;
    let last = users.last().filter(|_| users.len() >= HELD_USERS);
    let behind = last.map(|last| UserId::new(last.as_str())).transpose().map_err(undecodable)?;
    Ok(HeldStarted { openings, behind, left })
}

async fn openings(
    started: &[String],
    namespace: &str,
    connection: &mut SqliteConnection,
) -> Result<Vec<Opening>, sqlx::Error> {
    let rows = sqlx::query(OPENINGS).bind(namespace).bind(json(started)?).fetch_all(connection).await?;
    let mut openings: Vec<Opening> = Vec::with_capacity(started.len());
    for row in rows {
        let event = row.try_get(3)?;
        if row.try_get::<i64, _>(1)? == 0 {
            openings.push(Opening { event, merged: Vec::new() });
        } else if let Some(opening) = openings.last_mut() {
            // Rows come turn by turn, its own event first.
            opening.merged.push(event);
        }
    }
    Ok(openings)
}
