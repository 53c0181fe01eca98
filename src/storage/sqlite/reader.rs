//! The task that gathers questions: those that come while all connections are busy share the next one.

use std::sync::Arc;

use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use throughline_schemas::{WorkflowId, event::context::Turn};
use tokio::sync::mpsc;

use crate::storage::{
    context_rows::{self, Contexts, Known, MAX_QUESTIONS, undecodable},
    operation::Question,
    text,
};

const CONTEXT: &str = include_str!("context.sql");

/// Runs until every sender is gone.
pub(super) async fn run(readers: SqlitePool, namespace: Arc<str>, mut queue: mpsc::Receiver<Question>) {
    while let Some(first) = queue.recv().await {
        let mut questions = vec![first];
        // A free connection first, then all that has come in the meantime.
        let connection = readers.acquire().await;
        while questions.len() < MAX_QUESTIONS
            && let Ok(question) = queue.try_recv()
        {
            questions.push(question);
        }
        match connection {
            Ok(mut connection) => {
                let namespace = Arc::clone(&namespace);
                tokio::spawn(async move {
                    let contexts = ask(&mut connection, &namespace, &questions).await;
                    context_rows::answer(questions, contexts);
                });
            }
            Err(error) => context_rows::answer(questions, Err(error)),
        }
    }
}

async fn ask(
    connection: &mut SqliteConnection,
    namespace: &str,
    questions: &[Question],
) -> Result<Contexts, sqlx::Error> {
    let pairs: Vec<(&str, &str)> = questions.iter().map(|q| (q.user.as_str(), q.session.as_str())).collect();
    let pairs = serde_json::to_string(&pairs).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let rows = sqlx::query(CONTEXT)
        .bind(pairs)
        .bind(context_rows::most_turns(questions))
        .bind(namespace)
        .fetch_all(connection)
        .await?;
    let mut contexts = Contexts::of(questions.len());
    for row in &rows {
        learn(contexts.at(row.try_get(0)?)?, row)?;
    }
    Ok(contexts)
}

fn learn(known: &mut Known, row: &SqliteRow) -> Result<(), sqlx::Error> {
    if let Some(workflow) = row.try_get::<Option<&str>, _>(1)? {
        known.turn(row.try_get(5)?, turn(workflow, row)?);
    } else {
        known.preference(row.try_get(2)?, serde_json::from_str(row.try_get(3)?).map_err(undecodable)?);
    }
    Ok(())
}

fn turn(workflow: &str, row: &SqliteRow) -> Result<Turn, sqlx::Error> {
    Ok(Turn {
        workflow_id: WorkflowId::new(workflow).map_err(undecodable)?,
        user: row.try_get(2)?,
        assistant: row.try_get(3)?,
        at: text::parse_instant(row.try_get(4)?).map_err(undecodable)?,
    })
}
