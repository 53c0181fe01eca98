//! Short ways to say what the stories are about.

use std::collections::BTreeMap;

use serde_json::Value;
use throughline_schemas::{
    FailureCode, FinishReason, Metadata, SessionId, StageName, Timestamp, Usage, UserId, WorkflowFailed,
    WorkflowId,
    event::{
        generation::Response,
        input::{Request, WhenBusy},
    },
};

use crate::ports::store::{
    Admission, AdmissionResult, Admitted, Closed, Ending, Failing, FailureRecord, Fingerprint, Interaction,
    Opening, SessionOwner, Store, UserLimits, Verdict,
};

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_760_000_000_000_i64.saturating_add_unsigned(ms))
}

pub(super) fn workflow(id: &str) -> WorkflowId {
    WorkflowId::new(id).expect("an id")
}

pub(super) fn session(id: &str) -> SessionId {
    SessionId::new(id).expect("an id")
}

pub(super) fn user(id: &str) -> UserId {
    UserId::new(id).expect("an id")
}

const EVENT_PREFIX: &[u8] = b"\xff\0'\"";

/// The event of a workflow: not UTF-8, because no store needs to understand it.
pub(super) fn event(id: &str) -> Vec<u8> {
    [EVENT_PREFIX, id.as_bytes()].concat()
}

/// The workflow whose event it is.
pub(super) fn event_of(event: &[u8]) -> &str {
    let id = event.strip_prefix(EVENT_PREFIX).expect("an event of these stories");
    std::str::from_utf8(id).expect("an event of these stories")
}

pub(super) fn accepted(id: &str, of: &str, input_sequence: u64) -> Admission {
    asking(WhenBusy::Enqueue, id, of, input_sequence)
}

pub(super) fn asking(when_busy: WhenBusy, id: &str, of: &str, input_sequence: u64) -> Admission {
    Admission {
        workflow_id: workflow(id),
        session_id: session(of),
        user_id: user("ann"),
        input_sequence,
        fingerprint: says(id, of),
        at: at(input_sequence),
        verdict: Verdict::Accepted { event: event(id), when_busy, owner: SessionOwner::Any },
        limits: UserLimits::default(),
    }
}

/// The answer to a message whose workflow id belongs to another one, of this session.
pub(super) fn conflict(of: &str) -> AdmissionResult {
    AdmissionResult::Conflict { session_id: session(of) }
}

/// What the message of a workflow says.
fn says(id: &str, of: &str) -> Fingerprint {
    Fingerprint::of(&user("ann"), &session(of), &format!("question of {id}"), None)
}

pub(super) fn refused(id: &str, of: &str, input_sequence: u64) -> Admission {
    let failure = FailureRecord::of(&failure(FailureCode::InvalidInput, "user_input is empty"));
    Admission { verdict: Verdict::Refused { failure }, ..accepted(id, of, input_sequence) }
}

/// The same message with another text.
pub(super) fn saying(text: &str, admission: Admission) -> Admission {
    let fingerprint = Fingerprint::of(&admission.user_id, &admission.session_id, text, None);
    Admission { fingerprint, ..admission }
}

pub(super) fn failure(code: FailureCode, message: &str) -> WorkflowFailed {
    WorkflowFailed {
        code,
        stage: StageName::Generation,
        message: message.to_owned(),
        attempts: 4,
        retryable: true,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 2,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    }
}

pub(super) fn interaction(id: &str, of: &str, input_sequence: u64) -> Interaction {
    Interaction {
        workflow_id: workflow(id),
        interaction_id: format!("interaction of {id}"),
        session_id: session(of),
        user_id: user("ann"),
        request: Request {
            user_input: format!("question of {id}"),
            metadata: Metadata::from_iter([("channel".to_owned(), Value::from("web"))]),
            input_sequence,
            received_at: at(input_sequence),
            merged: Vec::new(),
            redo: None,
        },
        response: Response {
            text: format!("answer to {id}"),
            model: "gpt-4o-mini-2024-07-18".to_owned(),
            provider: "openai".to_owned(),
            finish_reason: FinishReason::Stop,
            finish_reason_raw: None,
            reasoning: None,
            tool_calls: Vec::new(),
        },
        usage: Usage {
            input_tokens: 20,
            output_tokens: 7,
            cached_input_tokens: 3,
            reasoning_tokens: 1,
            ..Usage::default()
        },
        cost_usd: None,
        degraded: Vec::new(),
        saved_at: at(input_sequence + 500),
        generated_at: at(input_sequence + 400),
    }
}

/// The beginning of a workflow's turn into which these were merged.
pub(super) fn opening(id: &str, merged: &[&str]) -> Opening {
    Opening { event: event(id), merged: merged.iter().map(|id| event(id)).collect() }
}

/// Ended as asked, and `next` is the workflow whose turn it is now.
pub(super) fn ended(next: Option<&str>) -> Closed {
    Closed { ending: Ending::AsAsked, next: next.map(|id| opening(id, &[])) }
}

impl Closed {
    /// The turn that it names began with these as well.
    pub(super) fn with(mut self, merged: &[&str]) -> Self {
        self.next.iter_mut().for_each(|next| next.merged = merged.iter().map(|id| event(id)).collect());
        self
    }
}

pub(super) fn ended_otherwise(next: Option<&str>) -> Closed {
    Closed { ending: Ending::Otherwise, next: next.map(|id| opening(id, &[])) }
}

/// Everything that is answered to an admission.
pub(super) async fn ask<S: Store + ?Sized>(store: &S, batch: &[Admission]) -> Vec<Admitted> {
    store.admit(batch.to_vec()).await.expect("the store answers")
}

pub(super) async fn admit<S: Store + ?Sized>(store: &S, batch: &[Admission]) -> Vec<AdmissionResult> {
    ask(store, batch).await.into_iter().map(|admitted| admitted.result).collect()
}

pub(super) async fn save<S: Store + ?Sized>(store: &S, interaction: Interaction) -> Closed {
    store.save(interaction).await.expect("the store answers")
}

/// A turn that the model refused to answer.
pub(super) fn failing(id: &str, of: &str, input_sequence: u64) -> Failing {
    Failing {
        workflow_id: workflow(id),
        session_id: session(of),
        user_id: user("ann"),
        input_sequence,
        at: at(900),
        failure: FailureRecord::of(&failure(FailureCode::ModelRejected, "the key was refused")),
    }
}

pub(super) async fn fail<S: Store + ?Sized>(store: &S, id: &str, of: &str, input_sequence: u64) -> Closed {
    store.fail(failing(id, of, input_sequence)).await.expect("the store answers")
}

/// The ids of the latest saved turns.
pub(super) async fn recent<S: Store + ?Sized>(store: &S, who: &str, of: &str, turns: usize) -> Vec<String> {
    let context = store.context(&user(who), &session(of), turns).await.expect("the store answers");
    context.recent_turns.into_iter().map(|turn| turn.workflow_id.into()).collect()
}
