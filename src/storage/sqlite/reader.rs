//! The task that gathers questions: those that come while all connections are busy share the next one.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use sqlx::{Row, SqliteConnection, SqlitePool, sqlite::SqliteRow};
use throughline_schemas::{
    WorkflowId,
    event::context::{Context, Turn},
};
use tokio::sync::mpsc;

use super::{error, operation::Answer, text};

/// Questions in one query.
const MAX_QUESTIONS: usize = 64;

const CONTEXT: &str = include_str!("context.sql");

const READING: &str = "reading preferences and recent turns";

/// What is known about this user, in this session?
#[derive(Debug)]
pub(super) struct Question {
    pub(super) user: String,
    pub(super) session: String,
    /// How many turns at most.
    pub(super) turns: usize,
    pub(super) answer: Answer<Context>,
}

/// Runs until every sender is gone.
pub(super) async fn run(readers: SqlitePool, mut queue: mpsc::Receiver<Question>) {
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
                tokio::spawn(async move {
                    let contexts = ask(&mut connection, &questions).await;
                    answer(questions, contexts);
                });
            }
            Err(error) => answer(questions, Err(error)),
        }
    }
}

fn answer(questions: Vec<Question>, contexts: Result<Vec<Context>, sqlx::Error>) {
    // A failed send means that nobody waits for the answer any more.
    match contexts {
        Ok(contexts) => {
            for (question, context) in questions.into_iter().zip(contexts) {
                drop(question.answer.send(Ok(context)));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for question in questions {
                drop(question.answer.send(Err(error::shared(READING, &error))));
            }
        }
    }
}

async fn ask(connection: &mut SqliteConnection, questions: &[Question]) -> Result<Vec<Context>, sqlx::Error> {
    let pairs: Vec<(&str, &str)> = questions.iter().map(|q| (q.user.as_str(), q.session.as_str())).collect();
    let pairs = serde_json::to_string(&pairs).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let most = questions.iter().map(|question| question.turns).max().unwrap_or(0);
    let rows = sqlx::query(CONTEXT)
        .bind(pairs)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let mut known: Vec<Known> = Vec::new();
    known.resize_with(questions.len(), Known::default);
    for row in &rows {
        let question: i64 = row.try_get(0)?;
        let known = usize::try_from(question).ok().and_then(|question| known.get_mut(question));
        known
            .ok_or_else(|| sqlx::Error::Protocol(format!("an answer to question {question}")))?
            .learn(row)?;
    }
    Ok(questions.iter().zip(known).map(|(question, known)| known.context(question.turns)).collect())
}

#[derive(Default)]
struct Known {
    preferences: Map<String, Value>,
    /// By input sequence, then workflow should two streams ever share a database.
    turns: BTreeMap<(i64, WorkflowId), Turn>,
}

impl Known {
    fn learn(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        if let Some(workflow) = row.try_get::<Option<&str>, _>(1)? {
            let turn = turn(workflow, row)?;
            self.turns.insert((row.try_get(5)?, turn.workflow_id.clone()), turn);
        } else {
            let value = serde_json::from_str(row.try_get(3)?).map_err(undecodable)?;
            self.preferences.insert(row.try_get(2)?, value);
        }
        Ok(())
    }

    /// The latest turns: there may be more, since another question of the batch wanted more.
    fn context(self, turns: usize) -> Context {
        let surplus = self.turns.len().saturating_sub(turns);
        let recent_turns = self.turns.into_values().skip(surplus).collect();
        Context { preferences: self.preferences, recent_turns }
    }
}

fn turn(workflow: &str, row: &SqliteRow) -> Result<Turn, sqlx::Error> {
    Ok(Turn {
        workflow_id: WorkflowId::new(workflow).map_err(undecodable)?,
        user: row.try_get(2)?,
        assistant: row.try_get(3)?,
        at: text::parse_instant(row.try_get(4)?).map_err(undecodable)?,
    })
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
