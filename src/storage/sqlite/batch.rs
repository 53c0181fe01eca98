//! Several operations as the parameters of the statements in `apply/`.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use throughline_actors::ports::store::{
    Admission, HeldQuery, HeldStarted, MERGE_LIMIT_BYTES, Share, UserLimits, Verdict,
};
use throughline_schemas::event::input::WhenBusy;

use super::{
    answers, held,
    rows::{Texts, TurnRow, admission_row, failed_turn, interaction_row, saved_turn},
};
use crate::storage::{
    answers::Answers,
    operation::{self, Operation},
    text::{instant, integer},
};

/// Begins the transaction, and ends turns.
const END: &str = include_str!("apply/end.sql");
/// Admits inputs, and starts turns.
const ADMIT: &str = include_str!("apply/admit.sql");
/// Says how things stand, and commits.
const ANSWER: &str = include_str!("apply/answer.sql");
/// All of it, which is one trip to SQLite when one run of admissions is all there is.
const APPLY: &str =
    concat!(include_str!("apply/end.sql"), include_str!("apply/admit.sql"), include_str!("apply/answer.sql"));

/// A batch, ready to be sent to SQLite.
#[derive(Default)]
pub(super) struct Batch {
    interactions: String,
    texts: Vec<u8>,
    endings: String,
    /// Runs of admissions with their events, in order.
    admissions: Vec<(String, Vec<u8>)>,
    questions: String,
    answers: usize,
    now: String,
    /// Of admission.
    limits: Option<UserLimits>,
    /// Which held turns to start, after everything else.
    held: Option<HeldQuery>,
}

/// What a batch has to say.
pub(super) struct Applied {
    pub(super) answers: Answers,
    pub(super) started: Option<HeldStarted>,
}

impl Batch {
    pub(super) fn of(operations: &[Operation]) -> Result<Self, sqlx::Error> {
        let mut texts = Texts::default();
        let (mut interactions, mut saves, mut fails) = (Vec::new(), Vec::new(), Vec::new());
        let (mut admissions, mut questions) = (Vec::new(), Vec::new());
        let (mut now, mut held) = (None, None);
        for operation in operations {
            match operation {
                Operation::Admit { batch, .. } => {
                    for admission in batch {
                        now = now.max(Some(admission.at));
                        questions.push((&admission.workflow_id, wants_opening(admission)));
                        admissions.push(admission);
                    }
                }
                Operation::Save { interaction, .. } => {
                    now = now.max(Some(interaction.saved_at));
                    interactions.push(interaction_row(interaction, &mut texts)?);
                    saves.push(saved_turn(interaction));
                    questions.push((&interaction.workflow_id, true));
                }
                Operation::Fail { failing, .. } => {
                    now = now.max(Some(failing.at));
                    fails.push(failed_turn(failing, &mut texts));
                    questions.push((&failing.workflow_id, true));
                }
                // One is as good as several.
                Operation::StartHeld { query, .. } => held = Some(query.clone()),
                Operation::Close(_) => {}
            }
        }
        // Should both endings of a turn meet in one batch, the answer is kept.
        saves.append(&mut fails);
        let runs = admissions.chunk_by(|one, next| waits(one) && waits(next));
        Ok(Self {
            interactions: json(&interactions)?,
            texts: texts.0,
            endings: json(&saves)?,
            admissions: runs.map(run_of_admissions).collect::<Result<_, _>>()?,
            answers: questions.len(),
            questions: json(&questions)?,
            now: now.map(instant).unwrap_or_default(),
            limits: operation::limits(operations),
            held,
        })
    }

    /// Applies the batch in one transaction. After an error the connection may still be inside it.
    pub(super) async fn apply(
        self,
        namespace: &str,
        connection: &mut SqliteConnection,
    ) -> Result<Applied, sqlx::Error> {
        let nothing = [("[]".to_owned(), Vec::new())];
        let runs = if self.admissions.is_empty() { nothing.as_slice() } else { &self.admissions };
        let mut started = None;
        let rows = if let ([only], None) = (runs, &self.held) {
            self.run(APPLY, only, namespace, connection).await?
        } else {
            self.run(END, &nothing[0], namespace, connection).await?;
            for run in runs {
                self.run(ADMIT, run, namespace, connection).await?;
            }
            if let Some(query) = &self.held {
                started = Some(held::start(query, namespace, connection).await?);
            }
            self.run(ANSWER, &nothing[0], namespace, connection).await?
        };
        Ok(Applied { answers: answers::read(&rows, self.answers)?, started })
    }

    async fn run(
        &self,
        sql: &'static str,
        (admissions, events): &(String, Vec<u8>),
        namespace: &str,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let (each, all) = shares(self.limits);
        let open = self.limits.and_then(|limits| limits.open).map_or(0, |open| i64::from(open.get()));
        sqlx::query(sql)
            .bind(&self.interactions)
            .bind(&self.texts)
            .bind(&self.endings)
            .bind(admissions)
            .bind(events)
            .bind(&self.questions)
            .bind(&self.now)
            .bind(integer(MERGE_LIMIT_BYTES as u64))
            .bind(namespace)
            .bind(each)
            .bind(all)
            .bind(open)
            .fetch_all(connection)
            .await
    }
}

/// How many running turns of a user start whatever else runs, and up to how many of all users further ones. Where nothing
/// is admitted, turns end whose sessions go on: their place is free.
fn shares(limits: Option<UserLimits>) -> (Option<i64>, Option<i64>) {
    match limits {
        None => (Some(i64::from(Share::LEAST)), None),
        Some(UserLimits { share: None, .. }) => (None, None),
        Some(UserLimits { share: Some(Share { each, all }), .. }) => {
            (Some(i64::from(each)), Some(i64::from(all)))
        }
    }
}

/// Whether an input is content to wait.
fn waits(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { when_busy, .. } => *when_busy == WhenBusy::Enqueue,
        Verdict::Refused { .. } => true,
    }
}

/// Whether an input is to be told what the session's running turn began with.
fn wants_opening(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { when_busy: WhenBusy::Interrupt | WhenBusy::Merge, .. } => true,
        Verdict::Accepted { when_busy: WhenBusy::Enqueue | WhenBusy::Reject, .. }
        | Verdict::Refused { .. } => false,
    }
}

fn run_of_admissions(run: &[&Admission]) -> Result<(String, Vec<u8>), sqlx::Error> {
    let mut events = Texts::default();
    let mut known = HashSet::new();
    let mut rows: Vec<TurnRow<'_>> = Vec::with_capacity(run.len());
    for admission in run {
        let mut row = admission_row(admission, &mut events);
        row.again = !known.insert(&admission.workflow_id);
        rows.push(row);
    }
    Ok((json(&rows)?, events.0))
}

/// Rows as the JSON that the statements take apart.
pub(super) fn json<T: Serialize>(rows: &[T]) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}
