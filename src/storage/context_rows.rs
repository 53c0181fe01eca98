//! What the rows of a query say about several (user, session) pairs.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use throughline_schemas::{
    WorkflowId,
    event::context::{Context, Turn},
};

use super::{error, operation::Question};

pub(super) const READING: &str = "reading preferences and recent turns";

/// Questions in one query.
pub(super) const MAX_QUESTIONS: usize = 64;

/// What is known about one pair.
#[derive(Default)]
pub(super) struct Known {
    preferences: Map<String, Value>,
    /// By input sequence, then workflow should two streams ever share a database.
    turns: BTreeMap<(i64, WorkflowId), Turn>,
}

impl Known {
    pub(super) fn preference(&mut self, name: String, value: Value) {
        self.preferences.insert(name, value);
    }

    pub(super) fn turn(&mut self, input_sequence: i64, turn: Turn) {
        self.turns.insert((input_sequence, turn.workflow_id.clone()), turn);
    }

    /// The latest turns: there may be more, since another question of the batch wanted more.
    fn context(self, turns: usize) -> Context {
        let surplus = self.turns.len().saturating_sub(turns);
        let recent_turns = self.turns.into_values().skip(surplus).collect();
        Context { preferences: self.preferences, recent_turns }
    }
}

/// What is known about each pair of a query.
pub(super) struct Contexts(Vec<Known>);

impl Contexts {
    pub(super) fn of(questions: usize) -> Self {
        let mut known = Vec::new();
        known.resize_with(questions, Known::default);
        Self(known)
    }

    /// The pair of this question, which is counted from zero.
    pub(super) fn at(&mut self, question: i64) -> Result<&mut Known, sqlx::Error> {
        let known = usize::try_from(question).ok().and_then(|question| self.0.get_mut(question));
        known.ok_or_else(|| sqlx::Error::Decode(format!("an answer to question {question}").into()))
    }
}

/// Gives everybody what was asked for.
pub(super) fn answer(questions: Vec<Question>, contexts: Result<Contexts, sqlx::Error>) {
    // A failed send means that the answer is not awaited any more.
    match contexts {
        Ok(contexts) => {
            for (question, known) in questions.into_iter().zip(contexts.0) {
                drop(question.answer.send(Ok(known.context(question.turns))));
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

/// The most turns that any of the questions wants.
pub(super) fn most_turns(questions: &[Question]) -> i64 {
    let most = questions.iter().map(|question| question.turns).max().unwrap_or(0);
    i64::try_from(most).unwrap_or(i64::MAX)
}

pub(super) fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
