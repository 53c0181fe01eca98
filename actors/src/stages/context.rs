//! Context retrieval: preferences and recent turns from the database.

use std::sync::Arc;

use async_trait::async_trait;
use throughline_schemas::{Event, EventData, StageName, event::ContextRetrieved};

use crate::{
    delivery::handler::{Next, Run, Step, Stopped},
    dependency::Dependency,
    ports::store::Store,
    stages::wrong_event,
    workflow::stage_context::store_away,
};

/// See the module's documentation.
pub struct ContextStep {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The database as a dependency.
    pub database: Dependency,
    /// How many earlier turns to read.
    pub recent_turns: usize,
}

#[async_trait]
impl Step for ContextStep {
    fn stage(&self) -> StageName {
        StageName::Context
    }

    async fn run(&self, event: &Event, run: Run<'_>) -> Result<Next, Stopped> {
        let EventData::InputValidated(validated) = &event.data else { return Err(wrong_event(event)) };
        let meta = &event.meta;
        let context = self
            .database
            .call(run.made, |_| self.store.context(&meta.user_id, &meta.session_id, self.recent_turns))
            .await
            .map_err(|gave_up| Stopped::Otherwise(store_away(&gave_up)))?;
        let data =
            EventData::ContextRetrieved(ContextRetrieved { request: validated.request.clone(), context });
        Ok(Next { data, attempt: run.made + 1, release: None })
    }
}
