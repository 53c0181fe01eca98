//! Several operations as the parameters of `apply.sql`, and its rows as their answers.

use serde::Serialize;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use throughline_actors::ports::store::{
    Admission, Admitted, Closed, Ending, Interaction, StoreError, Verdict,
};
use throughline_schemas::{SessionId, Timestamp, UserId, WorkflowId};

use super::{
    operation::Operation,
    text::{finish_reason, instant, integer},
};

/// The statements of a transaction, `BEGIN` and `COMMIT` included.
const APPLY: &str = include_str!("apply.sql");

/// Where a long text stands in the BLOB that goes along; SQLite counts from one.
#[derive(Default)]
struct Texts(Vec<u8>);

impl Texts {
    fn push(&mut self, text: &[u8]) -> (usize, usize) {
        let from = self.0.len() + 1;
        self.0.extend_from_slice(text);
        (from, text.len())
    }
}

#[derive(Serialize)]
struct InteractionRow<'a> {
    workflow_id: &'a WorkflowId,
    interaction_id: &'a str,
    user_id: &'a UserId,
    session_id: &'a SessionId,
    input_from: usize,
    input_length: usize,
    response_from: usize,
    response_length: usize,
    provider: &'a str,
    model: &'a str,
    finish_reason: &'static str,
    input_tokens: i64,
    cached_input_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    cost_usd: Option<String>,
    metadata_from: usize,
    metadata_length: usize,
    input_sequence: i64,
    received_at: String,
    generated_at: String,
    created_at: String,
    total_ms: i64,
}

#[derive(Serialize)]
struct TurnRow<'a> {
    workflow_id: &'a WorkflowId,
    session_id: &'a SessionId,
    user_id: Option<&'a UserId>,
    input_sequence: Option<i64>,
    state: &'static str,
    at: String,
    event_from: usize,
    event_length: usize,
}

/// A batch, ready to be sent to SQLite.
#[derive(Default)]
pub(super) struct Batch {
    interactions: String,
    texts: Vec<u8>,
    endings: String,
    admissions: String,
    events: Vec<u8>,
    questions: String,
    answers: usize,
    now: String,
}

impl Batch {
    pub(super) fn of(operations: &[Operation]) -> Result<Self, sqlx::Error> {
        let (mut texts, mut events) = (Texts::default(), Texts::default());
        let (mut interactions, mut saves, mut fails) = (Vec::new(), Vec::new(), Vec::new());
        let (mut admissions, mut questions) = (Vec::new(), Vec::new());
        let mut now = None;
        for operation in operations {
            match operation {
                Operation::Admit { batch, .. } => {
                    for admission in batch {
                        now = now.max(Some(admission.at));
                        admissions.push(admission_row(admission, &mut events));
                        questions.push((&admission.workflow_id, false));
                    }
                }
                Operation::Save { interaction, .. } => {
                    now = now.max(Some(interaction.saved_at));
                    interactions.push(interaction_row(interaction, &mut texts)?);
                    saves.push(saved_turn(interaction));
                    questions.push((&interaction.workflow_id, true));
                }
                Operation::Fail { workflow, session, at, .. } => {
                    now = now.max(Some(*at));
                    fails.push(failed_turn(workflow, session, *at));
                    questions.push((workflow, true));
                }
                Operation::Close(_) => {}
            }
        }
        // Should both endings of a turn meet in one batch, the answer is kept.
        saves.append(&mut fails);
        Ok(Self {
            interactions: json(&interactions)?,
            texts: texts.0,
            endings: json(&saves)?,
            admissions: json(&admissions)?,
            events: events.0,
            answers: questions.len(),
            questions: json(&questions)?,
            now: now.map(instant).unwrap_or_default(),
        })
    }

    /// Applies the batch in one transaction. After an error the connection may still be inside it.
    pub(super) async fn apply(self, connection: &mut SqliteConnection) -> Result<Standings, sqlx::Error> {
        let rows = sqlx::query(APPLY)
            .bind(self.interactions)
            .bind(self.texts)
            .bind(self.endings)
            .bind(self.admissions)
            .bind(self.events)
            .bind(self.questions)
            .bind(self.now)
            .fetch_all(connection)
            .await?;
        if rows.len() != self.answers {
            let (got, wanted) = (rows.len(), self.answers);
            return Err(sqlx::Error::Protocol(format!("{got} answers to {wanted} questions")));
        }
        let mut standings = rows.iter().map(Standing::decode).collect::<Result<Vec<_>, _>>()?;
        standings.sort_by_key(|standing| standing.question);
        Ok(Standings(standings.into_iter()))
    }
}

fn json<T: Serialize>(rows: &[T]) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn admission_row<'a>(admission: &'a Admission, events: &mut Texts) -> TurnRow<'a> {
    let (state, event) = match &admission.verdict {
        Verdict::Accepted { event } => ("waiting", event.as_slice()),
        Verdict::Refused => ("failed", &[][..]),
    };
    let (event_from, event_length) = events.push(event);
    TurnRow {
        workflow_id: &admission.workflow_id,
        session_id: &admission.session_id,
        user_id: Some(&admission.user_id),
        input_sequence: Some(integer(admission.input_sequence)),
        state,
        at: instant(admission.at),
        event_from,
        event_length,
    }
}

fn interaction_row<'a>(
    interaction: &'a Interaction,
    texts: &mut Texts,
) -> Result<InteractionRow<'a>, sqlx::Error> {
    let Interaction { request, response, usage, .. } = interaction;
    let metadata =
        serde_json::to_vec(&request.metadata).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let (input_from, input_length) = texts.push(request.user_input.as_bytes());
    let (response_from, response_length) = texts.push(response.text.as_bytes());
    let (metadata_from, metadata_length) = texts.push(&metadata);
    Ok(InteractionRow {
        workflow_id: &interaction.workflow_id,
        interaction_id: &interaction.interaction_id,
        user_id: &interaction.user_id,
        session_id: &interaction.session_id,
        input_from,
        input_length,
        response_from,
        response_length,
        provider: &response.provider,
        model: &response.model,
        finish_reason: finish_reason(response.finish_reason),
        input_tokens: integer(usage.input_tokens),
        cached_input_tokens: integer(usage.cached_input_tokens),
        output_tokens: integer(usage.output_tokens),
        reasoning_tokens: integer(usage.reasoning_tokens),
        cost_usd: interaction.cost_usd.map(|cost| cost.to_string()),
        metadata_from,
        metadata_length,
        input_sequence: integer(request.input_sequence),
        received_at: instant(request.received_at),
        generated_at: instant(interaction.generated_at),
        created_at: instant(interaction.saved_at),
        total_ms: integer(interaction.saved_at.ms_since(request.received_at)),
    })
}

fn saved_turn(interaction: &Interaction) -> TurnRow<'_> {
    TurnRow {
        workflow_id: &interaction.workflow_id,
        session_id: &interaction.session_id,
        user_id: Some(&interaction.user_id),
        input_sequence: Some(integer(interaction.request.input_sequence)),
        state: "saved",
        at: instant(interaction.saved_at),
        event_from: 0,
        event_length: 0,
    }
}

fn failed_turn<'a>(workflow_id: &'a WorkflowId, session_id: &'a SessionId, at: Timestamp) -> TurnRow<'a> {
    TurnRow {
        workflow_id,
        session_id,
        user_id: None,
        input_sequence: None,
        state: "failed",
        at: instant(at),
        event_from: 0,
        event_length: 0,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Saved,
    Failed,
}

/// How the turn of one question stands after the commit.
struct Standing {
    question: i64,
    state: State,
    input_sequence: Option<i64>,
    next: Option<Vec<u8>>,
}

impl Standing {
    fn decode(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let state = match row.try_get(1)? {
            "waiting" => State::Waiting,
            "running" => State::Running,
            "saved" => State::Saved,
            "failed" => State::Failed,
            other => return Err(sqlx::Error::Decode(format!("unknown state {other:?} of a turn").into())),
        };
        Ok(Self { question: row.try_get(0)?, state, input_sequence: row.try_get(2)?, next: row.try_get(3)? })
    }

    fn admitted(&self, admission: &Admission) -> Admitted {
        let ours = integer(admission.input_sequence);
        if self.input_sequence.is_some_and(|first| first != ours) {
            return Admitted::Duplicate;
        }
        match (self.state, &admission.verdict) {
            (State::Running, _) => Admitted::Running,
            (State::Waiting, _) => Admitted::Waiting,
            (State::Failed, Verdict::Refused) => Admitted::Failed,
            (State::Failed, Verdict::Accepted { .. }) | (State::Saved, _) => Admitted::Ended,
        }
    }

    fn closed(self, asked: State) -> Closed {
        let ending = if self.state == asked { Ending::AsAsked } else { Ending::Otherwise };
        Closed { ending, next: self.next }
    }
}

/// The answers to a batch, in the order of its questions.
pub(super) struct Standings(std::vec::IntoIter<Standing>);

impl Standings {
    /// Answers an operation; operations come in the order in which they were given to [`Batch::of`].
    pub(super) fn answer(&mut self, operation: Operation) {
        // A failed send means that nobody waits for the answer any more. A missing standing cannot be, since
        // they were counted; should it be all the same, the caller learns that nobody answers.
        match operation {
            Operation::Admit { batch, answer } => {
                // The batch comes first in the zip, so that its end takes no standing of the next operation.
                let standings = batch.iter().zip(self.0.by_ref());
                let admitted = standings.map(|(admission, standing)| standing.admitted(admission)).collect();
                drop(answer.send(Ok(admitted)));
            }
            Operation::Save { answer, .. } => {
                let closed = self.0.next().map(|standing| standing.closed(State::Saved));
                drop(closed.map(|closed| answer.send(Ok::<_, StoreError>(closed))));
            }
            Operation::Fail { answer, .. } => {
                let closed = self.0.next().map(|standing| standing.closed(State::Failed));
                drop(closed.map(|closed| answer.send(Ok::<_, StoreError>(closed))));
            }
            Operation::Close(_) => {}
        }
    }
}
