//! Persistence: stores the interaction, which ends the workflow and starts the session's next turn.

use std::sync::Arc;

use async_trait::async_trait;
use throughline_schemas::{Event, EventData, StageName};

use crate::{
    delivery::handler::{Next, Run, Step, Stopped},
    dependency::Dependency,
    ports::{
        clock::Clock,
        store::{Ending, Interaction, Store},
    },
    stages::wrong_event,
    workflow::{
        saved,
        stage_context::{reason_on_record, store_away},
    },
};

/// See the module's documentation.
pub struct PersistenceStep {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The database as a dependency.
    pub database: Dependency,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl Step for PersistenceStep {
    fn stage(&self) -> StageName {
        StageName::Persistence
    }

    async fn run(&self, event: &Event, run: Run<'_>) -> Result<Next, Stopped> {
        let EventData::ResponseGenerated(generated) = &event.data else { return Err(wrong_event(event)) };
        let saved_at = self.clock.now();
        let interaction = Interaction {
            workflow_id: event.meta.workflow_id.clone(),
            interaction_id: saved::interaction_id(&event.meta.workflow_id, generated.request.received_at),
            session_id: event.meta.session_id.clone(),
            user_id: event.meta.user_id.clone(),
            request: generated.request.clone(),
            response: generated.response.clone(),
            usage: generated.usage,
            cost_usd: generated.cost_usd,
            degraded: generated.degraded.clone(),
            saved_at,
            generated_at: event.meta.time,
        };
        let closed = self
            .database
            .call(run.made, |_| self.store.save(interaction.clone()))
            .await
            .map_err(|gave_up| Stopped::Otherwise(store_away(&gave_up)))?;
        let data = match closed.ending {
            Ending::Otherwise | Ending::Duplicate => {
                let now = (StageName::Persistence, run.made + 1);
                let (store, workflow) = (self.store.as_ref(), &event.meta.workflow_id);
                let reason = reason_on_record(store, &self.database, workflow, now).await;
                EventData::WorkflowFailed(reason.map_err(|gave_up| Stopped::Otherwise(store_away(&gave_up)))?)
            }
            Ending::AsAsked => saved::event(&event.meta.workflow_id, generated, saved_at),
        };
        Ok(Next { data, attempt: run.made + 1, release: closed.next })
    }

    fn saved(&self, event: &Event) -> Option<EventData> {
        let EventData::ResponseGenerated(generated) = &event.data else { return None };
        Some(saved::event(&event.meta.workflow_id, generated, self.clock.now()))
    }
}
