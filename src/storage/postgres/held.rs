//! Starting turns that were held.

use sqlx::{PgConnection, Row};
use throughline_actors::ports::store::{HELD_USERS, HeldQuery, HeldStarted, Opening, Share};
use throughline_schemas::UserId;
use time::OffsetDateTime;

use super::connection::Statement;
use crate::storage::{kept, text::integer};

const START: &str =
    "SELECT opening, merged, more, last_user FROM throughline_start_held($1, $2, $3, $4, $5, $6, $7)";

/// Start held turns, as many as there is room for.
pub(super) struct StartHeld<'a> {
    pub(super) namespace: &'a str,
    pub(super) query: &'a HeldQuery,
}

impl Statement for StartHeld<'_> {
    type Answer = HeldStarted;

    async fn send(&self, connection: &mut PgConnection) -> Result<HeldStarted, sqlx::Error> {
        let Self { namespace, query } = self;
        let rows = sqlx::query(START)
            .bind(*namespace)
            .bind(query.behind.as_ref().map_or("", UserId::as_str))
            .bind(OffsetDateTime::from(query.at))
            .bind(query.share.map(|Share { each, .. }| i64::from(each)))
            .bind(query.share.map(|Share { all, .. }| i64::from(all)))
            .bind(integer(query.most as u64))
            .bind(integer(HELD_USERS as u64))
            .fetch_all(connection)
            .await?;
        let mut started = HeldStarted::default();
        for row in rows {
            if let Some(event) = row.try_get(0)? {
                started.openings.push(Opening { event, merged: row.try_get(1)? });
            } else {
                started.left = row.try_get(2)?;
                started.behind = kept::id(row.try_get(3)?)?;
            }
        }
        Ok(started)
    }
}
