//! The rows of `answer.sql` as answers.

use sqlx::{Row, sqlite::SqliteRow};
use throughline_actors::ports::store::Opening;

use crate::storage::answers::{Answer, Answers, Columns, Turn, undecodable};

/// What a row is about: its second column.
mod about {
    pub(super) const TURN: i64 = 0;
    pub(super) const RUNNING: i64 = 1;
    pub(super) const MERGED: i64 = 2;
    pub(super) const INTERRUPTED: i64 = 3;
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
            about::TURN => self.turn = Some(turn(row)?),
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

/// The answers to `wanted` questions.
pub(super) fn read(rows: &[SqliteRow], wanted: usize) -> Result<Answers, sqlx::Error> {
    let mut known = Vec::new();
    known.resize_with(wanted, Known::default);
    for row in rows {
        let question: i64 = row.try_get(0)?;
        let known = usize::try_from(question).ok().and_then(|question| known.get_mut(question));
        known.ok_or_else(|| undecodable(format!("an answer to question {question}")))?.learn(row)?;
    }
    Answers::new(known.into_iter().filter_map(Known::answer).collect(), wanted)
}

fn turn(row: &SqliteRow) -> Result<Turn, sqlx::Error> {
    Turn::new(&Columns {
        state: row.try_get(2)?,
        input_sequence: row.try_get(3)?,
        failure: row.try_get(4)?,
        superseded_by: row.try_get(5)?,
        session: row.try_get(7)?,
        user: row.try_get(8)?,
        fingerprint: row.try_get(9)?,
        code: row.try_get(10)?,
        held: row.try_get(11)?,
    })
}
