//! Several operations as the parameters of the statements in `apply/`.

use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};
use throughline_actors::ports::store::{Admission, Failing, Interaction, MERGE_LIMIT_BYTES, Verdict};
use throughline_schemas::{SessionId, UserId, WorkflowId, event::input::WhenBusy};

use super::answers;
use crate::storage::{
    answers::Answers,
    operation::Operation,
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
    when_busy: &'static str,
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
    /// Runs of admissions with their events, in order.
    admissions: Vec<(String, Vec<u8>)>,
    questions: String,
    answers: usize,
    now: String,
}

impl Batch {
    pub(super) fn of(operations: &[Operation]) -> Result<Self, sqlx::Error> {
        let mut texts = Texts::default();
        let (mut interactions, mut saves, mut fails) = (Vec::new(), Vec::new(), Vec::new());
        let (mut admissions, mut questions) = (Vec::new(), Vec::new());
        let mut now = None;
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
                    fails.push(failed_turn(failing));
                    questions.push((&failing.workflow_id, true));
                }
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
        })
    }

    /// Applies the batch in one transaction. After an error the connection may still be inside it.
    pub(super) async fn apply(self, connection: &mut SqliteConnection) -> Result<Answers, sqlx::Error> {
        let nothing = [("[]".to_owned(), Vec::new())];
        let runs = if self.admissions.is_empty() { nothing.as_slice() } else { &self.admissions };
        let rows = if let [only] = runs {
            self.run(APPLY, only, connection).await?
        } else {
            self.run(END, &nothing[0], connection).await?;
            for run in runs {
                self.run(ADMIT, run, connection).await?;
            }
            self.run(ANSWER, &nothing[0], connection).await?
        };
        answers::read(&rows, self.answers)
    }

    async fn run(
        &self,
        sql: &'static str,
        (admissions, events): &(String, Vec<u8>),
        connection: &mut SqliteConnection,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        sqlx::query(sql)
            .bind(&self.interactions)
            .bind(&self.texts)
            .bind(&self.endings)
            .bind(admissions)
            .bind(events)
            .bind(&self.questions)
            .bind(&self.now)
            .bind(integer(MERGE_LIMIT_BYTES as u64))
            .fetch_all(connection)
            .await
    }
}

/// Whether an input is content to wait.
fn waits(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { when_busy, .. } => *when_busy == WhenBusy::Enqueue,
        Verdict::Refused => true,
    }
}

/// Whether an input is to be told what the session's running turn began with.
fn wants_opening(admission: &Admission) -> bool {
    match &admission.verdict {
        Verdict::Accepted { when_busy: WhenBusy::Interrupt | WhenBusy::Merge, .. } => true,
        Verdict::Accepted { when_busy: WhenBusy::Enqueue | WhenBusy::Reject, .. } | Verdict::Refused => false,
    }
}

fn run_of_admissions(run: &[&Admission]) -> Result<(String, Vec<u8>), sqlx::Error> {
    let mut events = Texts::default();
    let rows: Vec<TurnRow<'_>> = run.iter().map(|admission| admission_row(admission, &mut events)).collect();
    Ok((json(&rows)?, events.0))
}

fn json<T: Serialize>(rows: &[T]) -> Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn admission_row<'a>(admission: &'a Admission, events: &mut Texts) -> TurnRow<'a> {
    let (state, event, when_busy) = match &admission.verdict {
        Verdict::Accepted { event, when_busy } => ("waiting", event.as_slice(), when_busy.as_str()),
        Verdict::Refused => ("failed", &[][..], ""),
    };
    let (event_from, event_length) = events.push(event);
    TurnRow {
        workflow_id: &admission.workflow_id,
        session_id: &admission.session_id,
        user_id: Some(&admission.user_id),
        input_sequence: Some(integer(admission.input_sequence)),
        state,
        when_busy,
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
        finish_reason: response.finish_reason.as_str(),
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
        when_busy: "",
        at: instant(interaction.saved_at),
        event_from: 0,
        event_length: 0,
    }
}

fn failed_turn(failing: &Failing) -> TurnRow<'_> {
    TurnRow {
        workflow_id: &failing.workflow_id,
        session_id: &failing.session_id,
        user_id: None,
        input_sequence: Some(integer(failing.input_sequence)),
        state: "failed",
        when_busy: "",
        at: instant(failing.at),
        event_from: 0,
        event_length: 0,
    }
}
