//! Short ways to say what the stories are about.

use serde_json::{Map, Value};
use throughline_schemas::{
    FinishReason, SessionId, Timestamp, Usage, UserId, WorkflowId,
    event::{
        generation::Response,
        input::{Request, WhenBusy},
    },
};

use crate::ports::store::{
    Admission, Admitted, Closed, Ending, Failing, Interaction, Opening, Standing, Store, Verdict,
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
        at: at(input_sequence),
        verdict: Verdict::Accepted { event: event(id), when_busy },
    }
}

pub(super) fn refused(id: &str, of: &str, input_sequence: u64) -> Admission {
    Admission { verdict: Verdict::Refused, ..accepted(id, of, input_sequence) }
}

pub(super) fn interaction(id: &str, of: &str, input_sequence: u64) -> Interaction {
    Interaction {
        workflow_id: workflow(id),
        interaction_id: format!("interaction of {id}"),
        session_id: session(of),
        user_id: user("ann"),
        request: Request {
            user_input: format!("question of {id}"),
            metadata: Map::from_iter([("channel".to_owned(), Value::from("web"))]),
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
pub(super) async fn ask<S: Store>(store: &S, batch: &[Admission]) -> Vec<Admitted> {
    store.admit(batch.to_vec()).await.expect("the store answers")
}

pub(super) async fn admit<S: Store>(store: &S, batch: &[Admission]) -> Vec<Standing> {
    ask(store, batch).await.into_iter().map(|admitted| admitted.standing).collect()
}

pub(super) async fn save<S: Store>(store: &S, interaction: Interaction) -> Closed {
    store.save(interaction).await.expect("the store answers")
}

pub(super) async fn fail<S: Store>(store: &S, id: &str, of: &str, input_sequence: u64) -> Closed {
    let failing = Failing { workflow_id: workflow(id), session_id: session(of), input_sequence, at: at(900) };
    store.fail(failing).await.expect("the store answers")
}

/// The ids of the latest saved turns.
pub(super) async fn recent<S: Store>(store: &S, who: &str, of: &str, turns: usize) -> Vec<String> {
    let context = store.context(&user(who), &session(of), turns).await.expect("the store answers");
    context.recent_turns.into_iter().map(|turn| turn.workflow_id.into()).collect()
}
