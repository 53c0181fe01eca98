//! Ends that the log has and the database does not.
//!
//! A turn ends with a commit, and its end is published after that. So an end that is in the log and not in the database
//! means that the database went back in time: a backup was restored, a replica took over, a file was lost. What was
//! published stays true: the turn is closed as the log says, no model is asked again, and its session goes on.

use throughline_schemas::{
    Event, EventData, EventType, SessionId, Subject, Timestamp, WorkflowId, decode,
    event::{InteractionSaved, input::Request},
};

use crate::{
    metrics,
    policy::{limits::BUS_RETRY_DELAY, merge, settle::Outcome},
    ports::store::{Closed, Failing, FailureRecord, Interaction, Opening, RestoredTurn},
    workflow::{
        id_conflict,
        stage_context::{PublishFailed, StageContext, store_away},
    },
};

/// Turns of one session that are closed in a row; a sweep goes on behind them.
const MOST_IN_A_ROW: usize = 1_024;

/// Closes a turn that the log says has ended, and goes on along its session for as long as the log has the ends of the
/// turns behind it; then the next one begins. Says how many it closed: none if the log has no end that it could use.
pub(crate) async fn close_along(
    context: &StageContext,
    session: &SessionId,
    workflow: &WorkflowId,
    input_sequence: u64,
) -> Result<usize, Outcome> {
    let opening = context.database.call(0, |_| context.store.opening(workflow)).await;
    if let Some(opening) = opening.map_err(|gave_up| store_away(&gave_up))?
        && id_conflict::is_anothers(context, &opening).await.map_err(PublishFailed::outcome)?
    {
        return released(context, opening, 0).await;
    }
    let mut place = (workflow.clone(), input_sequence);
    for count in 0..MOST_IN_A_ROW {
        let end = of(context, session, &place.0).await.map_err(PublishFailed::outcome)?;
        let Some(end) = end else { return Ok(count) };
        tracing::warn!(workflow = %place.0, "the database had forgotten the end of a turn; it is closed as the log says");
        let Some(recorded) = close(context, &end, place.1).await? else { return Ok(count) };
        let Some(next) = recorded.next else { return Ok(count + 1) };
        if id_conflict::is_anothers(context, &next).await.map_err(PublishFailed::outcome)? {
            return released(context, next, count).await;
        }
        let (event, sequence) = merge::opened(&next).map_err(|error| Outcome::Later {
            after: BUS_RETRY_DELAY,
            reason: format!("next turn unreadable: {error}"),
        })?;
        place = (event.meta.workflow_id, sequence);
        if !is_published(context, session, &place.0).await.map_err(PublishFailed::outcome)? {
            return released(context, next, count).await;
        }
    }
    Ok(MOST_IN_A_ROW)
}

/// Begins a turn, or refuses it, behind so many that were closed; one more is dealt with then.
async fn released(context: &StageContext, next: Opening, count: usize) -> Result<usize, Outcome> {
    match context.release(Some(next)).await {
        Outcome::Done => Ok(count + 1),
        outcome @ (Outcome::Later { .. }
        | Outcome::Unusable { .. }
        | Outcome::Died { .. }
        | Outcome::TakenOver) => Err(outcome),
    }
}

/// Records an end that was published. `None` if the request that was answered is not in the log any more.
pub(crate) async fn close(
    context: &StageContext,
    end: &Event,
    input_sequence: u64,
) -> Result<Option<Closed>, Outcome> {
    let restored = restored(context, end, input_sequence).await.map_err(PublishFailed::outcome)?;
    let Some(restored) = restored else { return Ok(None) };
    let recorded = context.database.call(0, |_| context.store.restore(restored.clone())).await;
    let recorded = recorded.map_err(|gave_up| store_away(&gave_up))?;
    metrics::restored();
    Ok(Some(recorded))
}

async fn is_published(
    context: &StageContext,
    session: &SessionId,
    workflow: &WorkflowId,
) -> Result<bool, PublishFailed> {
    for end in [EventType::InteractionSaved, EventType::WorkflowFailed] {
        if context.exists(&Subject::new(end, session, workflow)).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The end of a workflow as the log has it; an answer before a failure, should it have both.
pub(crate) async fn of(
    context: &StageContext,
    session: &SessionId,
    workflow: &WorkflowId,
) -> Result<Option<Event>, PublishFailed> {
    for end in [EventType::InteractionSaved, EventType::WorkflowFailed] {
        let recorded = context.recorded(&Subject::new(end, session, workflow)).await?;
        if let Some(event) = recorded.and_then(|body| decode(&body).ok()) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// What the database should have of an end.
async fn restored(
    context: &StageContext,
    end: &Event,
    input_sequence: u64,
) -> Result<Option<RestoredTurn>, PublishFailed> {
    match &end.data {
        EventData::InteractionSaved(saved) => {
            let Some((request, generated_at)) = request_of(context, end).await? else { return Ok(None) };
            Ok(Some(RestoredTurn::Saved(Box::new(interaction(end, saved, request, generated_at)))))
        }
        EventData::WorkflowFailed(failed) => Ok(Some(RestoredTurn::Failed(Failing {
            workflow_id: end.meta.workflow_id.clone(),
            session_id: end.meta.session_id.clone(),
            user_id: end.meta.user_id.clone(),
            input_sequence: if input_sequence == 0 {
                request_of(context, end).await?.map_or(0, |(request, _)| request.input_sequence)
            } else {
                input_sequence
            },
            at: end.meta.time,
            failure: FailureRecord::of(failed),
        }))),
        EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ExternalDataFetched(_)
        | EventData::ResponseGenerated(_) => Ok(None),
    }
}

/// The request of a workflow that has ended, and when its answer was generated.
pub(crate) async fn request_of(
    context: &StageContext,
    end: &Event,
) -> Result<Option<(Request, Timestamp)>, PublishFailed> {
    for event_type in [EventType::ResponseGenerated, EventType::InputValidated] {
        let subject = Subject::new(event_type, &end.meta.session_id, &end.meta.workflow_id);
        let recorded = context.recorded(&subject).await?.and_then(|body| decode(&body).ok());
        if let Some(event) = recorded
            && let Some(request) = event.data.request()
        {
            return Ok(Some((request.clone(), event.meta.time)));
        }
    }
    Ok(None)
}

fn interaction(
    end: &Event,
    saved: &InteractionSaved,
    request: Request,
    generated_at: Timestamp,
) -> Interaction {
    Interaction {
        workflow_id: end.meta.workflow_id.clone(),
        interaction_id: saved.interaction_id.clone(),
        session_id: end.meta.session_id.clone(),
        user_id: end.meta.user_id.clone(),
        request,
        response: saved.response.clone(),
        usage: saved.usage,
        cost_usd: saved.cost_usd,
        degraded: saved.degraded.clone(),
        saved_at: saved.saved_at,
        generated_at,
    }
}
