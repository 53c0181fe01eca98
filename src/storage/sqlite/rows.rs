//! The rows that a batch brings, as JSON with their long values beside it.

use serde::Serialize;
use throughline_actors::ports::store::{
    Admission, Failing, FailureRecord, Interaction, SessionOwner, Verdict,
};
use throughline_schemas::{SessionId, UserId, WorkflowId};

use crate::storage::{
    kept::More,
    text::{instant, integer},
};

/// Where a long text stands in the BLOB that goes along; SQLite counts from one.
#[derive(Default)]
pub(super) struct Texts(pub(super) Vec<u8>);

impl Texts {
    pub(super) fn push(&mut self, text: &[u8]) -> (usize, usize) {
        let from = self.0.len() + 1;
        self.0.extend_from_slice(text);
        (from, text.len())
    }
}

/// A row of `interactions`.
#[derive(Serialize)]
pub(super) struct InteractionRow<'a> {
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
    more_from: usize,
    more_length: usize,
    input_sequence: i64,
    received_at: String,
    generated_at: String,
    created_at: String,
    total_ms: i64,
}

/// A row of `turns`, or what becomes of one.
#[derive(Serialize)]
pub(super) struct TurnRow<'a> {
    workflow_id: &'a WorkflowId,
    session_id: &'a SessionId,
    user_id: &'a UserId,
    input_sequence: i64,
    state: &'static str,
    when_busy: &'static str,
    /// Only for the owner of its session to make.
    owned: bool,
    /// An earlier row of the run is of the same workflow.
    pub(super) again: bool,
    at: String,
    event_from: usize,
    event_length: usize,
    fingerprint_from: usize,
    fingerprint_length: usize,
    failure_code: Option<&'static str>,
    failure_from: usize,
    failure_length: usize,
}

pub(super) fn admission_row<'a>(admission: &'a Admission, values: &mut Texts) -> TurnRow<'a> {
    let (state, event, when_busy, owned, failure) = match &admission.verdict {
        Verdict::Accepted { event, when_busy, owner } => {
            ("waiting", event.as_slice(), when_busy.as_str(), *owner == SessionOwner::FirstUser, None)
        }
        Verdict::Refused { failure } => ("failed", &[][..], "", false, Some(failure)),
    };
    let (event_from, event_length) = values.push(event);
    let (fingerprint_from, fingerprint_length) = values.push(admission.fingerprint.as_bytes());
    let (failure_from, failure_length) = values.push(failure.map_or(&[][..], FailureRecord::as_bytes));
    TurnRow {
        workflow_id: &admission.workflow_id,
        session_id: &admission.session_id,
        user_id: &admission.user_id,
        input_sequence: integer(admission.input_sequence),
        state,
        when_busy,
        owned,
        again: false,
        at: instant(admission.at),
        event_from,
        event_length,
        fingerprint_from,
        fingerprint_length,
        failure_code: failure.map(|failure| failure.code().as_str()),
        failure_from,
        failure_length,
    }
}

pub(super) fn interaction_row<'a>(
    interaction: &'a Interaction,
    texts: &mut Texts,
) -> Result<InteractionRow<'a>, sqlx::Error> {
    let Interaction { request, response, usage, .. } = interaction;
    let encode = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let metadata = serde_json::to_vec(&request.metadata).map_err(encode)?;
    let more = More::of(interaction).map(|more| serde_json::to_vec(&more)).transpose().map_err(encode)?;
    let (input_from, input_length) = texts.push(request.user_input.as_bytes());
    let (response_from, response_length) = texts.push(response.text.as_bytes());
    let (metadata_from, metadata_length) = texts.push(&metadata);
    let (more_from, more_length) = texts.push(more.as_deref().unwrap_or_default());
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
        more_from,
        more_length,
        input_sequence: integer(request.input_sequence),
        received_at: instant(request.received_at),
        generated_at: instant(interaction.generated_at),
        created_at: instant(interaction.saved_at),
        total_ms: integer(interaction.saved_at.ms_since(request.received_at)),
    })
}

pub(super) fn saved_turn(interaction: &Interaction) -> TurnRow<'_> {
    TurnRow {
        workflow_id: &interaction.workflow_id,
        session_id: &interaction.session_id,
        user_id: &interaction.user_id,
        input_sequence: integer(interaction.request.input_sequence),
        state: "saved",
        when_busy: "",
        owned: false,
        again: false,
        at: instant(interaction.saved_at),
        event_from: 0,
        event_length: 0,
        fingerprint_from: 0,
        fingerprint_length: 0,
        failure_code: None,
        failure_from: 0,
        failure_length: 0,
    }
}

pub(super) fn failed_turn<'a>(failing: &'a Failing, texts: &mut Texts) -> TurnRow<'a> {
    let (failure_from, failure_length) = texts.push(failing.failure.as_bytes());
    TurnRow {
        workflow_id: &failing.workflow_id,
        session_id: &failing.session_id,
        user_id: &failing.user_id,
        input_sequence: integer(failing.input_sequence),
        state: "failed",
        when_busy: "",
        owned: false,
        again: false,
        at: instant(failing.at),
        event_from: 0,
        event_length: 0,
        fingerprint_from: 0,
        fingerprint_length: 0,
        failure_code: Some(failing.failure.code().as_str()),
        failure_from,
        failure_length,
    }
}
