//! What is known about several (user, session) pairs.

use sqlx::{PgConnection, Row, postgres::PgRow};
use throughline_schemas::{Timestamp, WorkflowId, event::context::Turn};
use time::OffsetDateTime;

use super::{
    connection::Statement,
    nul::{from_stored, json_from_stored},
};
use crate::storage::{
    context_rows::{self, Contexts, Known, undecodable},
    operation::Question,
};

const CONTEXT: &str = "SELECT question, workflow_id, name, value, input, response, created_at, input_sequence
    FROM throughline_context_2($1, $2, $3, $4)";

pub(super) struct Ask<'a> {
    pub(super) namespace: &'a str,
    pub(super) questions: &'a [Question],
}

impl Statement for Ask<'_> {
    type Answer = Contexts;

    async fn send(&self, connection: &mut PgConnection) -> Result<Contexts, sqlx::Error> {
        let (users, sessions): (Vec<&str>, Vec<&str>) =
            self.questions.iter().map(|q| (q.user.as_str(), q.session.as_str())).unzip();
        let rows = sqlx::query(CONTEXT)
            .bind(self.namespace)
            .bind(users)
            .bind(sessions)
            .bind(context_rows::most_turns(self.questions))
            .fetch_all(connection)
            .await?;
        let mut contexts = Contexts::of(self.questions.len());
        for row in &rows {
            // PostgreSQL counts from one.
            learn(contexts.at(row.try_get::<i64, _>(0)? - 1)?, row)?;
        }
        Ok(contexts)
    }
}

fn learn(known: &mut Known, row: &PgRow) -> Result<(), sqlx::Error> {
    if let Some(workflow) = row.try_get::<Option<&str>, _>(1)? {
        let turn = Turn {
            workflow_id: WorkflowId::new(workflow).map_err(undecodable)?,
            user: from_stored(row.try_get(4)?),
            assistant: from_stored(row.try_get(5)?),
            at: Timestamp::from(row.try_get::<OffsetDateTime, _>(6)?),
        };
        known.turn(row.try_get(7)?, turn);
    } else {
        let value = serde_json::from_str(row.try_get(3)?).map_err(undecodable)?;
        known.preference(from_stored(row.try_get(2)?), json_from_stored(&value));
    }
    Ok(())
}
