//! Messages whose workflow id is known already: the same message again, or another one.

use throughline_schemas::{
    Event, EventData, EventType, FailureCode, Meta, SessionId, StageName, Subject, WorkflowFailed,
    event::InteractionSaved,
};

use crate::{
    metrics,
    policy::settle::Outcome,
    ports::store::{Interaction, KnownEnd},
    workflow::{
        id_conflict::{self, Holder},
        stage_context::{PublishFailed, StageContext, caused},
    },
};

/// Ends a message whose workflow id belongs to another message. Its publisher learns nothing of that one.
///
/// In another session the end stands on the id's own subject there, where nothing of the other workflow can stand; in
/// the same one under an id of its own ([`throughline_schemas::WorkflowId::of_conflict`]).
///
/// A database that went back may have given the id of this very message to another session meanwhile. Its end stands in
/// the log then, and it has no second one.
pub(crate) async fn conflict(
    context: &StageContext,
    event: &Event,
    sequence: u64,
    holder: &SessionId,
) -> Outcome {
    let meta = caused(event.meta.clone());
    let workflow_id = if *holder == meta.session_id {
        meta.workflow_id.of_conflict(sequence)
    } else {
        match id_conflict::holder(context, event).await {
            Ok(Holder::Nobody) => meta.workflow_id.clone(),
            Ok(Holder::This) => return Outcome::Done,
            Ok(Holder::Another) => meta.workflow_id.of_conflict(sequence),
            Err(failed) => return failed.outcome(),
        }
    };
    metrics::conflict();
    tracing::warn!(
        workflow = ?meta.workflow_id.as_str(),
        trace_id = %format_args!("{:032x}", meta.traceparent.trace_id()),
        sequence,
        "a workflow id was used again for another message, which is refused"
    );
    let failed = match &event.data {
        // An input that is not acceptable at all fails as such.
        EventData::WorkflowFailed(refused) => refused.clone(),
        EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ExternalDataFetched(_)
        | EventData::ResponseGenerated(_)
        | EventData::InteractionSaved(_) => failed(
            FailureCode::Conflict,
            format!(
                "the workflow id {} belongs to another message (of another user, session, text or source), so this one \
                 was not run; publish it under an id of its own",
                meta.workflow_id
            ),
        ),
    };
    let traceparent = meta.traceparent;
    settled(context.publish_failure(&Meta { workflow_id, ..meta }, failed, traceparent).await)
}

/// A message was published again after its workflow had ended: publishes the end again if the log does not have it any
/// more, since its publisher waits for it.
///
/// The database does not know what was said in a turn that was put back into it. So what the log has of that, or the
/// interaction, is compared again, and another message is refused here, too.
pub(crate) async fn repeated(context: &StageContext, event: &Event, sequence: u64) -> Outcome {
    let meta = caused(event.meta.clone());
    match id_conflict::holder(context, event).await {
        Ok(Holder::Another) => return conflict(context, event, sequence, &meta.session_id).await,
        Ok(Holder::Nobody | Holder::This) => {}
        Err(failed) => return failed.outcome(),
    }
    for end in [EventType::InteractionSaved, EventType::WorkflowFailed] {
        match context.exists(&Subject::new(end, &meta.session_id, &meta.workflow_id)).await {
            Ok(true) => return Outcome::Done,
            Ok(false) => {}
            Err(failed) => return failed.outcome(),
        }
    }
    let known = match context.known_end(&meta.workflow_id).await {
        Ok(known) => known,
        Err(outcome) => return outcome,
    };
    match known {
        // The worker that ends it publishes the end.
        Some(KnownEnd::Open) | None => Outcome::Done,
        Some(KnownEnd::Saved(interaction)) if is_anothers(&interaction, event) => {
            conflict(context, event, sequence, &meta.session_id).await
        }
        Some(KnownEnd::Saved(interaction)) => settled(publish_saved(context, &meta, *interaction).await),
        Some(KnownEnd::Failed(_)) => match context.reason(&meta.workflow_id, 1).await {
            Ok(reason) => settled(context.publish_failure(&meta, reason, meta.traceparent).await),
            Err(outcome) => outcome,
        },
        Some(KnownEnd::Forgotten { .. }) => {
            let gone = failed(
                FailureCode::Gone,
                "the workflow has ended, and its answer is not kept any more; publish the message under a new workflow \
                 id to have it answered again"
                    .to_owned(),
            );
            settled(context.publish_failure(&meta, gone, meta.traceparent).await)
        }
    }
}

/// Whether an answer was given to another user, or to another text.
fn is_anothers(interaction: &Interaction, event: &Event) -> bool {
    interaction.session_id != event.meta.session_id
        || interaction.user_id != event.meta.user_id
        || event
            .data
            .request()
            .is_some_and(|said| !id_conflict::begins_with(&interaction.request.user_input, said))
}

fn settled(result: Result<(), PublishFailed>) -> Outcome {
    result.map_or_else(PublishFailed::outcome, |()| Outcome::Done)
}

/// Publishes that a workflow was saved, from what the database has of it; nothing if the log has it.
///
/// The event is the one that the last stage publishes: the worker that saved it may be about to publish it, and a replay
/// finds no difference.
pub(crate) async fn publish_saved(
    context: &StageContext,
    meta: &Meta,
    interaction: Interaction,
) -> Result<(), PublishFailed> {
    let context = StageContext { stage: StageName::Persistence, ..context.clone() };
    let answer = meta.workflow_id.event_id(EventType::ResponseGenerated);
    let data = saved(interaction);
    let cause = Meta { id: answer, ..meta.clone() };
    let event = Event { meta: context.meta(&cause, &data, meta.traceparent, 1), data };
    context.publish(&event).await.map(|_| ())
}

/// The event that says, and says again, that a workflow was saved.
fn saved(interaction: Interaction) -> EventData {
    EventData::InteractionSaved(InteractionSaved {
        interaction_id: interaction.interaction_id,
        received_at: interaction.request.received_at,
        response: interaction.response,
        usage: interaction.usage,
        cost_usd: interaction.cost_usd,
        degraded: interaction.degraded,
        saved_at: interaction.saved_at,
    })
}

fn failed(code: FailureCode, message: String) -> WorkflowFailed {
    WorkflowFailed {
        code,
        stage: StageName::Input,
        message,
        attempts: 1,
        retryable: false,
        may_have_happened: false,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: std::collections::BTreeMap::new(),
    }
}
