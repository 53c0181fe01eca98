//! What is done too rarely to go through the queue of writes: forgetting, and putting ends right. Each is a transaction on
//! a connection of its own, behind the same write lock.

use sqlx::{Connection, SqliteConnection};
use throughline_actors::ports::store::{Closed, Ending, Failing, Interaction, RestoredTurn};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};

use super::{
    batch::json,
    file::DatabaseFile,
    rows::{Texts, interaction_row},
    turns::{OPENING, as_opening},
    write_lock::WriteLock,
};
use crate::storage::{
    kept::superseded,
    text::{instant, integer},
};

const DELETE_INTERACTION: &str = "DELETE FROM interactions WHERE namespace = $1 AND workflow_id = $2";
const DELETE_TURN: &str = "DELETE FROM turns WHERE namespace = $1 AND workflow_id = $2";
const SESSION: &str = "SELECT session_id FROM turns WHERE namespace = $1 AND workflow_id = $2";
const RESTORE: &str = include_str!("restore.sql");
const START: &str = include_str!("start.sql");
const FORGET_MERGED: &str =
    "UPDATE turns SET event = NULL WHERE namespace = $1 AND superseded_by = $2 AND failure = 'merged'";
const RUNNING: &str =
    "SELECT workflow_id FROM turns WHERE namespace = $1 AND session_id = $2 AND state = 'running'";

/// Deletes turns that ended before an instant, and what they said.
pub(super) async fn forget(file: &DatabaseFile, before: Timestamp, most: usize) -> Result<u64, sqlx::Error> {
    let mut write_lock = WriteLock::of(file.path());
    let _turn = write_lock.enter().await;
    let mut connection = file.connect().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let old: Vec<String> = sqlx::query_scalar(include_str!("forget.sql"))
        .bind(instant(before))
        .bind(integer(most as u64))
        .bind(file.namespace())
        .fetch_all(&mut *transaction)
        .await?;
    for workflow in &old {
        for delete in [DELETE_INTERACTION, DELETE_TURN] {
            sqlx::query(delete).bind(file.namespace()).bind(workflow).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(old.len() as u64)
}

/// Records an end as it was published.
pub(super) async fn restore(file: &DatabaseFile, restored: &RestoredTurn) -> Result<Closed, sqlx::Error> {
    let mut write_lock = WriteLock::of(file.path());
    let _turn = write_lock.enter().await;
    let mut connection = file.connect().await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let closed = End::of(restored).record(file.namespace(), &mut transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(closed)
}

/// An end, whichever it is.
struct End<'a> {
    workflow: &'a WorkflowId,
    session: &'a SessionId,
    user: &'a UserId,
    input_sequence: u64,
    at: Timestamp,
    how: How<'a>,
}

enum How<'a> {
    Saved(&'a Interaction),
    Failed(&'a Failing),
}

impl<'a> End<'a> {
    fn of(restored: &'a RestoredTurn) -> Self {
        match restored {
            RestoredTurn::Saved(saved) => Self {
                workflow: &saved.workflow_id,
                session: &saved.session_id,
                user: &saved.user_id,
                input_sequence: saved.request.input_sequence,
                at: saved.saved_at,
                how: How::Saved(saved),
            },
            RestoredTurn::Failed(failing) => Self {
                workflow: &failing.workflow_id,
                session: &failing.session_id,
                user: &failing.user_id,
                input_sequence: failing.input_sequence,
                at: failing.at,
                how: How::Failed(failing),
            },
        }
    }

    async fn record(
        &self,
        namespace: &str,
        connection: &mut SqliteConnection,
    ) -> Result<Closed, sqlx::Error> {
        let workflow = self.workflow.as_str();
        let of_workflow = |sql: &'static str| sqlx::query(sql).bind(namespace).bind(workflow);
        let before: Option<String> = sqlx::query_scalar(SESSION)
            .bind(namespace)
            .bind(workflow)
            .fetch_optional(&mut *connection)
            .await?;
        of_workflow(DELETE_INTERACTION).execute(&mut *connection).await?;
        let (state, code, record, (failure, by)) = match self.how {
            How::Saved(interaction) => {
                insert(interaction, namespace, connection).await?;
                ("saved", None, None, (None, None))
            }
            How::Failed(failing) => {
                let failure = &failing.failure;
                ("failed", Some(failure.code().as_str()), Some(failure.as_bytes()), superseded(failure))
            }
        };
        sqlx::query(RESTORE)
            .bind(namespace)
            .bind(workflow)
            .bind(self.session.as_str())
            .bind(self.user.as_str())
            .bind(integer(self.input_sequence))
            .bind(state)
            .bind(instant(self.at))
            .bind(failure)
            .bind(by.as_ref().map(WorkflowId::as_str))
            .bind(code)
            .bind(record)
            .execute(&mut *connection)
            .await?;
        of_workflow(FORGET_MERGED).execute(&mut *connection).await?;
        for session in before.as_deref().into_iter().chain([self.session.as_str()]) {
            let start = sqlx::query(START).bind(namespace).bind(session).bind(instant(self.at));
            start.execute(&mut *connection).await?;
        }
        let running = sqlx::query_scalar(RUNNING).bind(namespace).bind(self.session.as_str());
        let next = match running.fetch_optional(&mut *connection).await? {
            Some(running) => {
                let opening = sqlx::query(OPENING).bind::<String>(running).bind(namespace);
                as_opening(&opening.fetch_all(&mut *connection).await?)?
            }
            None => None,
        };
        Ok(Closed { ending: Ending::AsAsked, next })
    }
}

/// Stores an interaction in place of the one that was deleted.
async fn insert(
    interaction: &Interaction,
    namespace: &str,
    connection: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    let mut texts = Texts::default();
    let rows = json(&[interaction_row(interaction, &mut texts)?])?;
    let insert =
        sqlx::query(include_str!("restore_interaction.sql")).bind(rows).bind(texts.0).bind(namespace);
    insert.execute(connection).await.map(drop)
}
