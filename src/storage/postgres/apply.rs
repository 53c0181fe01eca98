//! Several operations as the parameters of `throughline_apply`, and its rows as their answers.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, Row, postgres::PgRow};
use throughline_actors::ports::store::{
    Admission, Failing, FailureRecord, Interaction, MERGE_LIMIT_BYTES, Opening, SessionOwner, Share,
    UserLimits, Verdict,
};
use throughline_schemas::{Metadata, SessionId, Timestamp, UserId, WorkflowId, event::input::WhenBusy};
use time::OffsetDateTime;

use super::{
    connection::Statement,
    nul::{json_to_stored, to_stored},
};
use crate::storage::{
    answers::{Answer, Answers, Columns, Turn},
    kept::More,
    operation::{self, Operation},
    text::integer,
};

const APPLY: &str = "SELECT
        state, input_sequence, failure, superseded_by, opening, merged, interrupted, session_id, user_id, fingerprint,
        failure_code, is_held
    FROM throughline_apply_4(
        $1, $2::json, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
    ORDER BY question";

/// A row of `interactions`.
#[derive(Serialize)]
pub(super) struct InteractionRow<'a> {
    namespace: &'a str,
    workflow_id: &'a WorkflowId,
    interaction_id: &'a str,
    user_id: &'a UserId,
    session_id: &'a SessionId,
    input: std::borrow::Cow<'a, str>,
    response: std::borrow::Cow<'a, str>,
    provider: std::borrow::Cow<'a, str>,
    model: std::borrow::Cow<'a, str>,
    finish_reason: &'static str,
    input_tokens: i64,
    cached_input_tokens: i64,
    output_tokens: i64,
    reasoning_tokens: i64,
    cost_usd: Option<String>,
    metadata: Metadata,
    input_sequence: i64,
    received_at: Timestamp,
    generated_at: Timestamp,
    created_at: Timestamp,
    total_ms: i64,
    more: Option<Value>,
}

/// A batch, ready to be sent: what was asked for, column by column.
#[derive(Default)]
pub(super) struct Batch<'a> {
    namespace: &'a str,
    saved: String,
    ids: Vec<&'a str>,
    sessions: Vec<&'a str>,
    users: Vec<&'a str>,
    sequences: Vec<i64>,
    asks: Vec<&'static str>,
    rounds: Vec<i32>,
    /// Only for the owner of its session to make.
    strict: Vec<bool>,
    events: Vec<Option<&'a [u8]>>,
    fingerprints: Vec<Option<&'a [u8]>>,
    codes: Vec<Option<&'static str>>,
    records: Vec<Option<&'a [u8]>>,
    instants: Vec<OffsetDateTime>,
    limits: UserLimits,
}

impl<'a> Batch<'a> {
    pub(super) fn of(namespace: &'a str, operations: &'a [Operation]) -> Result<Self, sqlx::Error> {
        let limits = operation::limits(operations).unwrap_or_default();
        let mut batch = Self { namespace, limits, ..Self::default() };
        let (mut saved, mut rounds) = (Vec::new(), Rounds::default());
        for operation in operations {
            match operation {
                Operation::Admit { batch: admissions, .. } => {
                    for admission in admissions {
                        batch.admit(admission, &mut rounds);
                    }
                }
                Operation::Save { interaction, .. } => {
                    saved.push(row(namespace, interaction)?);
                    batch.save(interaction);
                }
                Operation::Fail { failing, .. } => batch.fail(failing),
                // Held turns are started by a function of their own.
                Operation::StartHeld { .. } | Operation::Close(_) => {}
            }
        }
        batch.saved = serde_json::to_string(&saved).map_err(|error| sqlx::Error::Encode(error.into()))?;
        Ok(batch)
    }

    fn admit(&mut self, admission: &'a Admission, rounds: &mut Rounds<'a>) {
        let (ask, event, strict, failure) = match &admission.verdict {
            Verdict::Accepted { event, when_busy, owner } => {
                (when_busy.as_str(), Some(event.as_slice()), *owner == SessionOwner::FirstUser, None)
            }
            Verdict::Refused { failure } => ("refused", None, false, Some(failure)),
        };
        self.rounds.push(rounds.next(admission));
        self.strict.push(strict);
        self.events.push(event);
        self.fingerprints.push(Some(admission.fingerprint.as_bytes()));
        self.because(failure);
        self.users.push(admission.user_id.as_str());
        self.ask(ask, &admission.workflow_id, &admission.session_id, admission.input_sequence, admission.at);
    }

    fn save(&mut self, saved: &'a Interaction) {
        self.rounds.push(0);
        self.strict.push(false);
        self.events.push(None);
        self.fingerprints.push(None);
        self.because(None);
        self.users.push(saved.user_id.as_str());
        let sequence = saved.request.input_sequence;
        self.ask("save", &saved.workflow_id, &saved.session_id, sequence, saved.saved_at);
    }

    fn fail(&mut self, failing: &'a Failing) {
        self.rounds.push(0);
        self.strict.push(false);
        self.events.push(None);
        self.fingerprints.push(None);
        self.because(Some(&failing.failure));
        self.users.push(failing.user_id.as_str());
        self.ask("fail", &failing.workflow_id, &failing.session_id, failing.input_sequence, failing.at);
    }

    fn because(&mut self, failure: Option<&'a FailureRecord>) {
        self.codes.push(failure.map(|failure| failure.code().as_str()));
        self.records.push(failure.map(FailureRecord::as_bytes));
    }

    fn ask(
        &mut self,
        ask: &'static str,
        workflow: &'a WorkflowId,
        session: &'a SessionId,
        input_sequence: u64,
        at: Timestamp,
    ) {
        self.asks.push(ask);
        self.ids.push(workflow.as_str());
        self.sessions.push(session.as_str());
        self.sequences.push(integer(input_sequence));
        self.instants.push(at.into());
    }
}

impl Statement for Batch<'_> {
    type Answer = Answers;

    async fn send(&self, connection: &mut PgConnection) -> Result<Answers, sqlx::Error> {
        let latest = self.instants.iter().max().copied().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let rows = sqlx::query(APPLY)
            .bind(self.namespace)
            .bind(&self.saved)
            .bind(&self.ids)
            .bind(&self.sessions)
            .bind(&self.users)
            .bind(&self.sequences)
            .bind(&self.asks)
            .bind(&self.rounds)
            .bind(&self.strict)
            .bind(&self.events)
            .bind(&self.fingerprints)
            .bind(&self.codes)
            .bind(&self.records)
            .bind(&self.instants)
            .bind(latest)
            .bind(integer(MERGE_LIMIT_BYTES as u64))
            .bind(self.limits.share.map(|Share { each, .. }| i64::from(each)))
            .bind(self.limits.share.map(|Share { all, .. }| i64::from(all)))
            .bind(self.limits.open.map_or(0, |open| i64::from(open.get())))
            .fetch_all(connection)
            .await?;
        Answers::new(rows.iter().map(answer).collect::<Result<_, _>>()?, self.ids.len())
    }
}

/// When an admission is dealt with: those of one session that are content to wait, and follow each other, together;
/// one that asks for something else alone.
#[derive(Default)]
struct Rounds<'a>(HashMap<&'a SessionId, (i32, bool)>);

impl<'a> Rounds<'a> {
    fn next(&mut self, admission: &'a Admission) -> i32 {
        let waits = match &admission.verdict {
            Verdict::Accepted { when_busy, .. } => *when_busy == WhenBusy::Enqueue,
            Verdict::Refused { .. } => true,
        };
        let round = match self.0.get(&admission.session_id) {
            None => 0,
            Some((round, true)) if waits => *round,
            Some((round, _)) => round + 1,
        };
        self.0.insert(&admission.session_id, (round, waits));
        round
    }
}

pub(super) fn row<'a>(
    namespace: &'a str,
    interaction: &'a Interaction,
) -> Result<InteractionRow<'a>, sqlx::Error> {
    let Interaction { request, response, usage, .. } = interaction;
    let more = More::of(interaction).map(serde_json::to_value).transpose();
    let more = more.map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(InteractionRow {
        namespace,
        workflow_id: &interaction.workflow_id,
        interaction_id: &interaction.interaction_id,
        user_id: &interaction.user_id,
        session_id: &interaction.session_id,
        input: to_stored(&request.user_input),
        response: to_stored(&response.text),
        provider: to_stored(&response.provider),
        model: to_stored(&response.model),
        finish_reason: response.finish_reason.as_str(),
        input_tokens: integer(usage.input_tokens),
        cached_input_tokens: integer(usage.cached_input_tokens),
        output_tokens: integer(usage.output_tokens),
        reasoning_tokens: integer(usage.reasoning_tokens),
        cost_usd: interaction.cost_usd.map(|cost| cost.to_string()),
        metadata: request.metadata.map_texts(|text| to_stored(text).into_owned()),
        input_sequence: integer(request.input_sequence),
        received_at: request.received_at,
        generated_at: interaction.generated_at,
        created_at: interaction.saved_at,
        total_ms: integer(interaction.saved_at.ms_since(request.received_at)),
        more: more.as_ref().map(json_to_stored),
    })
}

fn answer(row: &PgRow) -> Result<Answer, sqlx::Error> {
    let turn = Turn::new(&Columns {
        state: row.try_get(0)?,
        input_sequence: row.try_get(1)?,
        failure: row.try_get(2)?,
        superseded_by: row.try_get(3)?,
        session: row.try_get(7)?,
        user: row.try_get(8)?,
        fingerprint: row.try_get(9)?,
        code: row.try_get(10)?,
        held: row.try_get(11)?,
    })?;
    let merged = row.try_get(5)?;
    let opening = row.try_get::<Option<Vec<u8>>, _>(4)?.map(|event| Opening { event, merged });
    Ok(Answer { turn, opening, interrupted: row.try_get(6)? })
}
