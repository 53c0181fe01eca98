//! Ends the workflow of an event that this version cannot read: one of a later version, or one that is broken.
//!
//! The body of such an event does not say readably whose it is, but its subject does, and the database knows whether that
//! workflow runs. It ends as failed, so that its session goes on and the event is not published and dead-lettered again.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use throughline_schemas::{
    Address, EventType, FailureCode, Meta, StageName, StepPath, Timestamp, Tokens, TraceParent, UserId,
    WorkflowFailed, WorkflowId,
};

use crate::{
    policy::{limits::BUS_RETRY_DELAY, settle::Outcome},
    ports::{
        bus::Delivery,
        store::{RunningQuery, RunningTurn, TurnState, TurnsQuery},
    },
    workflow::stage_context::{StageContext, store_away},
};

/// The header in which a publisher says which message it is.
const MESSAGE_ID: &str = "nats-msg-id";
/// Turns that are listed at once to find one by the hash of its id.
const PAGE: usize = 256;
/// Pages that are looked through for it. Behind them it is left to the limit of a turn.
const MOST_PAGES: usize = 64;
/// No turn has started later, whatever clock its process has.
const ANY_TIME_UNIX_MS: i64 = 253_402_300_799_000;

/// Whether a message is an event of ours, though this version cannot read it: its envelope says whose it is, or its message
/// id. Anything else on the subject is a stranger's, and the event may still come.
fn is_event(delivery: &Delivery) -> bool {
    let Some(tokens) = Tokens::of(&delivery.subject) else { return false };
    let (Some(event_type), Some(workflow)) = (tokens.event_type(), tokens.workflow) else { return false };
    let id = format!("{workflow}.{event_type}");
    // One that was published again has more behind it.
    let is_id =
        |given: &str| given.strip_prefix(&id).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    delivery.header(MESSAGE_ID).is_some_and(is_id) || tokens.is_of(&delivery.body)
}

/// Fails the workflow that the delivery's subject names, if it runs and this is its last event.
pub(crate) async fn end(
    context: &StageContext,
    delivery: &Delivery,
    code: FailureCode,
    error: &str,
) -> Result<(), Outcome> {
    if !is_event(delivery) {
        tracing::info!(delivery.sequence, "a message that is no event of ours ends no workflow");
        return Ok(());
    }
    let address = Address::of(&delivery.subject, &delivery.body);
    let Some(turn) = running(context, &delivery.subject, address.workflow).await? else { return Ok(()) };
    let latest = context
        .bus
        .latest(&turn.session_id, &turn.workflow_id)
        .await
        .map_err(|error| Outcome::Later { after: BUS_RETRY_DELAY, reason: error.to_string() })?;
    if latest.is_some_and(|latest| latest.sequence > delivery.sequence) {
        return Ok(());
    }
    let traceparent = address.traceparent.unwrap_or_else(|| trace_of(&turn.workflow_id));
    let failed = failed(context.stage, code, error, delivery.delivered);
    match context.fail(&cause(&turn, traceparent), turn.input_sequence, failed, traceparent).await {
        Outcome::Done => Ok(()),
        outcome @ (Outcome::Later { .. }
        | Outcome::Unusable { .. }
        | Outcome::Died { .. }
        | Outcome::TakenOver) => Err(outcome),
    }
}

/// How a workflow fails whose event was dead-lettered.
pub(crate) fn failed(stage: StageName, code: FailureCode, error: &str, attempts: u32) -> WorkflowFailed {
    WorkflowFailed {
        code,
        stage,
        message: format!("{error}; the message is kept as a dead letter"),
        attempts,
        retryable: false,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    }
}

/// The turn that runs and has the subject's tokens.
async fn running(
    context: &StageContext,
    subject: &str,
    workflow: Option<WorkflowId>,
) -> Result<Option<RunningTurn>, Outcome> {
    let Some(tokens) = Tokens::of(subject) else { return Ok(None) };
    let is_it = |turn: &RunningTurn| {
        tokens.session == Some(turn.session_id.token().as_str())
            && tokens.workflow == Some(turn.workflow_id.token().as_str())
    };
    if let Some(workflow) = workflow {
        return Ok(by_id(context, workflow).await?.filter(is_it));
    }
    let mut after = None;
    for _ in 0..MOST_PAGES {
        let started_by = Timestamp::from_unix_ms(ANY_TIME_UNIX_MS);
        let query = RunningQuery { started_by, after: after.take(), limit: PAGE };
        let listed = context.database.call(0, |_| context.store.running(query.clone())).await;
        let page = listed.map_err(|gave_up| store_away(&gave_up))?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|turn| (turn.started_at, turn.workflow_id.clone()));
        if let Some(turn) = page.into_iter().find(is_it) {
            return Ok(Some(turn));
        }
        if is_last {
            break;
        }
    }
    Ok(None)
}

async fn by_id(context: &StageContext, workflow: WorkflowId) -> Result<Option<RunningTurn>, Outcome> {
    let query = TurnsQuery::of(workflow);
    let listed = context.database.call(0, |_| context.store.latest_turns(query.clone())).await;
    let listed = listed.map_err(|gave_up| store_away(&gave_up))?;
    let running = listed.into_iter().find(|turn| turn.state == TurnState::Running);
    Ok(running.map(|turn| RunningTurn {
        workflow_id: turn.workflow_id,
        session_id: turn.session_id,
        user_id: turn.user_id.unwrap_or_else(UserId::unknown),
        input_sequence: turn.input_sequence.unwrap_or_default(),
        started_at: turn.updated_at,
    }))
}

/// The envelope of the event that the turn began with, as far as the database knows it.
fn cause(turn: &RunningTurn, traceparent: TraceParent) -> Meta {
    Meta {
        id: turn.workflow_id.event_id(EventType::InputValidated),
        source: format!("throughline/{}", StageName::Input),
        time: turn.started_at,
        workflow_id: turn.workflow_id.clone(),
        session_id: turn.session_id.clone(),
        user_id: turn.user_id.clone(),
        step: StepPath::NONE,
        causation_id: None,
        traceparent,
        attempt: 1,
    }
}

/// A trace for a workflow whose own is not known; the same each time.
fn trace_of(workflow: &WorkflowId) -> TraceParent {
    let digest = Sha256::digest(workflow.as_str());
    let number =
        |from: usize| digest.iter().skip(from).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    TraceParent::root(u128::from(number(0)) << 64 | u128::from(number(8)), number(16))
}
