//! Turns that have ended, and whose end is not in the log yet.
//!
//! A turn ends with a commit, and its end is published after that: a moment later, or after the ack wait if the process
//! that committed was killed in between. An input that is admitted meanwhile finds its session free, and would begin before
//! the log says that the turn before it has ended. So a worker that begins a turn looks there first, and publishes what is
//! missing.

use std::{collections::HashMap, time::Duration};

use futures_util::future::try_join_all;
use throughline_schemas::{
    Event, EventData, EventType, Meta, SessionId, StageName, Subject, WorkflowFailed, decode,
};

use crate::{
    metrics,
    policy::settle::Outcome,
    ports::{bus::Published, store::EndedTurn},
    workflow::{
        saved,
        stage_context::{PublishFailed, StageContext, store_away},
    },
};

/// Wait for the reason to be published, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// So often. The worker that knew it has had six seconds to publish it.
const WAITS: u32 = 6;

/// Of these turns, by session and input sequence, those before which the end of another has to be published, by their input
/// sequence. `Err` if that cannot be found out now.
pub async fn before(
    context: &StageContext,
    places: &[(SessionId, u64)],
) -> Result<HashMap<u64, EndedTurn>, Outcome> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let ended = context.database.call(0, |_| context.store.ended_before(places)).await;
    let ended = ended.map_err(|gave_up| store_away(&gave_up))?;
    let missing = places.iter().zip(ended).map(async |((session, sequence), ended)| {
        let Some(ended) = ended else { return Ok(None) };
        for end in [EventType::InteractionSaved, EventType::WorkflowFailed] {
            if context.exists(&Subject::new(end, session, &ended.workflow_id)).await? {
                return Ok(None);
            }
        }
        // An end that was published long ago may have expired, and then what it was made of has, too. The clocks of two
        // machines cannot say how long ago that was.
        if !context.exists(&Subject::new(basis(&ended), session, &ended.workflow_id)).await? {
            return Ok(None);
        }
        Ok(Some((*sequence, ended)))
    });
    let missing = try_join_all(missing).await.map_err(PublishFailed::outcome)?;
    Ok(missing.into_iter().flatten().collect())
}

/// Publishes an end, as the process that committed it would; nothing if what it is made of has vanished from the log.
pub async fn publish_end(
    context: &StageContext,
    session: &SessionId,
    ended: &EndedTurn,
) -> Result<(), Outcome> {
    let context = StageContext { stage: StageName::Persistence, ..context.clone() };
    let reason = if ended.saved { None } else { Some(context.reason(&ended.workflow_id, 1).await?) };
    publish_from_log(&context, session, ended, reason).await.map_err(PublishFailed::outcome)
}

/// `reason` is that of a turn that failed.
async fn publish_from_log(
    context: &StageContext,
    session: &SessionId,
    ended: &EndedTurn,
    reason: Option<WorkflowFailed>,
) -> Result<(), PublishFailed> {
    let recorded = context.recorded(&Subject::new(basis(ended), session, &ended.workflow_id)).await?;
    let Some(event) = recorded.and_then(|body| decode(&body).ok()) else { return Ok(()) };
    tracing::info!(workflow = %ended.workflow_id, "the end of a turn was not published; publishing it before the next one begins");
    if let EventData::ResponseGenerated(generated) = &event.data {
        let data = saved::event(&ended.workflow_id, generated, ended.ended_at);
        let meta: Meta = context.meta(&event.meta, &data, event.meta.traceparent, 1);
        if context.publish(&Event { meta, data }).await? == Published::New {
            metrics::saved();
        }
        return Ok(());
    }
    match reason {
        Some(reason) => context.publish_failure(&event.meta, reason, event.meta.traceparent).await,
        None => Ok(()),
    }
}

/// The event that an end is made from.
fn basis(ended: &EndedTurn) -> EventType {
    if ended.saved { EventType::ResponseGenerated } else { EventType::InputValidated }
}

/// How a delivery waits for the reason of a failure, which only the worker that failed the turn knows; `None` if it has
/// waited long enough.
pub fn wait(ended: &EndedTurn, delivered: u32) -> Option<Outcome> {
    if ended.saved || delivered > WAITS {
        return None;
    }
    Some(Outcome::Later {
        after: FIRST_WAIT.saturating_mul(1 << delivered.saturating_sub(1)),
        reason: "the end of the turn before it is not in the log yet".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{Timestamp, WorkflowId};

    use super::*;

    #[test]
    fn an_answer_is_published_at_once_and_a_reason_is_waited_for() {
        let workflow_id = WorkflowId::new("w").unwrap();
        let mut ended = EndedTurn { workflow_id, saved: true, ended_at: Timestamp::from_unix_ms(0) };
        assert!(wait(&ended, 1).is_none());
        ended.saved = false;
        let waits: Vec<_> = (1..10).map_while(|delivered| wait(&ended, delivered)).collect();
        let sum: Duration = waits
            .iter()
            .map(|outcome| if let Outcome::Later { after, .. } = outcome { *after } else { Duration::ZERO })
            .sum();
        assert_eq!((waits.len(), sum), (6, Duration::from_millis(6_300)));
    }
}
