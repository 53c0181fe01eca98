//! The rows of `answer.sql` as the answers to a batch of operations.

use sqlx::{Row, sqlite::SqliteRow};
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, Ending, Opening, Standing, StoreError, Verdict,
};
use throughline_schemas::WorkflowId;

use super::{operation::Operation, text::integer};

/// What a row is about: its second column.
mod about {
    pub(super) const TURN: i64 = 0;
    pub(super) const RUNNING: i64 = 1;
    pub(super) const MERGED: i64 = 2;
    pub(super) const INTERRUPTED: i64 = 3;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Saved,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Rejected,
    Interrupted,
    Merged,
}

/// How the turn of one question stands after the commit.
struct Turn {
    state: State,
    /// Unknown of turns that failed before they were admitted, in databases of the first version.
    input_sequence: Option<i64>,
    failure: Option<Failure>,
    superseded_by: Option<WorkflowId>,
}

/// All that is known about one question.
#[derive(Default)]
struct Known {
    turn: Option<Turn>,
    running: Option<Vec<u8>>,
    merged: Vec<(i64, Vec<u8>)>,
    interrupted: Option<Vec<u8>>,
}

impl Known {
    fn learn(&mut self, row: &SqliteRow) -> Result<(), sqlx::Error> {
        match row.try_get(1)? {
            about::TURN => self.turn = Some(Turn::decode(row)?),
            about::RUNNING => self.running = row.try_get(6)?,
            about::MERGED => {
                if let Some(event) = row.try_get(6)? {
                    self.merged.push((row.try_get(3)?, event));
                }
            }
            about::INTERRUPTED => self.interrupted = row.try_get(6)?,
            other => return Err(undecodable(format!("a row about {other}"))),
        }
        Ok(())
    }

    fn answer(mut self) -> Option<Answer> {
        self.merged.sort_by_key(|(sequence, _)| *sequence);
        let merged = self.merged.into_iter().map(|(_, event)| event).collect();
        let opening = self.running.map(|event| Opening { event, merged });
        Some(Answer { turn: self.turn?, opening, interrupted: self.interrupted })
    }
}

struct Answer {
    turn: Turn,
    opening: Option<Opening>,
    interrupted: Option<Vec<u8>>,
}

impl Turn {
    fn decode(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let state = match row.try_get(2)? {
            "waiting" => State::Waiting,
            "running" => State::Running,
            "saved" => State::Saved,
            "failed" => State::Failed,
            other => return Err(undecodable(format!("unknown state {other:?} of a turn"))),
        };
        let failure = match row.try_get(4)? {
            None => None,
            Some("rejected") => Some(Failure::Rejected),
            Some("interrupted") => Some(Failure::Interrupted),
            Some("merged") => Some(Failure::Merged),
            Some(other) => return Err(undecodable(format!("unknown failure {other:?} of a turn"))),
        };
        let superseded_by: Option<String> = row.try_get(5)?;
        let superseded_by = superseded_by.map(WorkflowId::new).transpose();
        Ok(Self {
            state,
            input_sequence: row.try_get(3)?,
            failure,
            superseded_by: superseded_by.map_err(|error| sqlx::Error::Decode(error.into()))?,
        })
    }

    fn is_of(&self, input_sequence: u64) -> bool {
        self.input_sequence.is_none_or(|known| known == integer(input_sequence))
    }

    fn standing(self, verdict: &Verdict) -> Standing {
        match (self.state, verdict, self.failure, self.superseded_by) {
            (State::Running, ..) => Standing::Running,
            (State::Waiting, ..) => Standing::Waiting,
            (State::Failed, Verdict::Refused, ..) => Standing::Refused,
            (State::Failed, Verdict::Accepted { .. }, Some(Failure::Rejected), _) => Standing::Rejected,
            (State::Failed, Verdict::Accepted { .. }, Some(Failure::Merged), Some(into)) => {
                Standing::Merged { into }
            }
            (
                State::Failed,
                Verdict::Accepted { .. },
                Some(Failure::Merged | Failure::Interrupted) | None,
                _,
            )
            | (State::Saved, ..) => Standing::Ended,
        }
    }
}

impl Answer {
    fn admitted(self, admission: &Admission) -> Admitted {
        if !self.turn.is_of(admission.input_sequence) {
            return Standing::Duplicate.into();
        }
        let standing = self.turn.standing(&admission.verdict);
        Admitted { standing, interrupted: self.interrupted, opening: self.opening }
    }

    fn saved(self) -> Closed {
        let ending = if self.turn.state == State::Saved { Ending::AsAsked } else { Ending::Otherwise };
        Closed { ending, next: self.opening }
    }

    fn failed(self, input_sequence: u64) -> Closed {
        if !self.turn.is_of(input_sequence) {
            return Closed { ending: Ending::Duplicate, next: None };
        }
        let ending = if self.turn.state == State::Failed { Ending::AsAsked } else { Ending::Otherwise };
        Closed { ending, next: self.opening }
    }
}

fn undecodable(problem: String) -> sqlx::Error {
    sqlx::Error::Decode(problem.into())
}

/// The answers to a batch, in the order of its questions.
pub(super) struct Answers(std::vec::IntoIter<Answer>);

impl Answers {
    pub(super) fn read(rows: &[SqliteRow], wanted: usize) -> Result<Self, sqlx::Error> {
        let mut known = Vec::new();
        known.resize_with(wanted, Known::default);
        for row in rows {
            let question: i64 = row.try_get(0)?;
            let known = usize::try_from(question).ok().and_then(|question| known.get_mut(question));
            known
                .ok_or_else(|| sqlx::Error::Protocol(format!("an answer to question {question}")))?
                .learn(row)?;
        }
        let answers: Option<Vec<Answer>> = known.into_iter().map(Known::answer).collect();
        let answers =
            answers.ok_or_else(|| sqlx::Error::Protocol("a question without an answer".to_owned()))?;
        Ok(Self(answers.into_iter()))
    }

    /// Answers an operation; operations come in the order in which they were given to the batch.
    pub(super) fn answer(&mut self, operation: Operation) {
        // A failed send means that nobody waits for the answer any more. A missing answer cannot be, since they were
        // counted; should it be all the same, the caller learns that nobody answers.
        match operation {
            Operation::Admit { batch, answer } => {
                // The batch comes first in the zip, so that its end takes no answer of the next operation.
                let answers = batch.iter().zip(self.0.by_ref());
                let admitted = answers.map(|(admission, answer)| answer.admitted(admission)).collect();
                drop(answer.send(Ok(admitted)));
            }
            Operation::Save { answer, .. } => {
                drop(self.0.next().map(|known| answer.send(Ok::<_, StoreError>(known.saved()))));
            }
            Operation::Fail { failing, answer } => {
                let closed = self.0.next().map(|known| known.failed(failing.input_sequence));
                drop(closed.map(|closed| answer.send(Ok::<_, StoreError>(closed))));
            }
            Operation::Close(_) => {}
        }
    }
}
