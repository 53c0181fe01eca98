//! Short ways to say what the tests are about.

use std::collections::BTreeMap;

use serde_json::json;
use throughline_actors::ports::store::{
    Admission, Closed, Ending, Failing, FailureRecord, Fingerprint, Interaction, Opening, SessionOwner,
    UserLimits, Verdict,
};
use throughline_schemas::{
    FailureCode, FinishReason, Metadata, SessionId, StageName, Timestamp, Usage, Usd, UserId, WorkflowFailed,
    WorkflowId,
    event::{
        generation::Response,
        input::{Request, WhenBusy},
    },
};

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(1_760_000_000_000 + ms)
}

pub(super) fn workflow(id: &str) -> WorkflowId {
    WorkflowId::new(id).unwrap()
}

pub(super) fn session(id: &str) -> SessionId {
    SessionId::new(id).unwrap()
}

pub(super) fn user(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

pub(super) fn admission(id: &str, of: &str, input_sequence: u64) -> Admission {
    asking(WhenBusy::Enqueue, id, of, input_sequence)
}

pub(super) fn asking(when_busy: WhenBusy, id: &str, of: &str, input_sequence: u64) -> Admission {
    Admission {
        workflow_id: workflow(id),
        session_id: session(of),
        user_id: user("ann"),
        input_sequence,
        fingerprint: Fingerprint::of(&user("ann"), &session(of), id, None),
        at: at(0),
        verdict: Verdict::Accepted { event: id.as_bytes().to_vec(), when_busy, owner: SessionOwner::Any },
        limits: UserLimits::default(),
    }
}

pub(super) fn failing(id: &str, of: &str, input_sequence: u64) -> Failing {
    let failed = WorkflowFailed {
        code: FailureCode::Stalled,
        stage: StageName::Generation,
        message: "it ran\0 too long".to_owned(),
        attempts: 1,
        retryable: true,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    };
    Failing {
        workflow_id: workflow(id),
        session_id: session(of),
        user_id: user("ann"),
        input_sequence,
        at: at(900),
        failure: FailureRecord::of(&failed),
    }
}

pub(super) fn interaction(id: &str, of: &str, input_sequence: u64) -> Interaction {
    Interaction {
        workflow_id: workflow(id),
        interaction_id: format!("interaction-{id}"),
        session_id: session(of),
        user_id: user("ann"),
        request: Request {
            user_input: "Where is\0my order?".to_owned(),
            metadata: Metadata::read(r#"{"channel":"web\u0000\u001a","\u0000":1e400}"#).unwrap(),
            input_sequence,
            received_at: at(0),
            merged: Vec::new(),
            redo: None,
        },
        response: Response {
            text: "On its \"way\".\0\u{1a}0".to_owned(),
            model: "gpt-4o\0mini".to_owned(),
            provider: "openai".to_owned(),
            finish_reason: FinishReason::Length,
            finish_reason_raw: None,
            reasoning: None,
            tool_calls: Vec::new(),
        },
        usage: Usage {
            input_tokens: 40,
            output_tokens: 9,
            cached_input_tokens: 8,
            reasoning_tokens: u64::MAX,
            ..Usage::default()
        },
        cost_usd: Some(serde_json::from_value::<Usd>(json!("0.0001950000000000000000000001")).unwrap()),
        degraded: Vec::new(),
        saved_at: at(1_250),
        generated_at: at(1_200),
    }
}

/// Saved, and the session's running turn is now this one.
pub(super) fn saved(next: Option<&str>) -> Closed {
    let opening = |next: &str| Opening { event: next.as_bytes().to_vec(), merged: Vec::new() };
    Closed { ending: Ending::AsAsked, next: next.map(opening) }
}
