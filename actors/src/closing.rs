//! Ending a workflow as failed, from whichever stage gives up.
//!
//! The database decides whether it may end so (once, and only one way); then the event is published, and the next
//! turn of the session is released. Each step is idempotent, so a crash in between is repaired by the redelivery.

use std::sync::Arc;

use throughline_schemas::{
    Event, EventData, FailureCode, Meta, StageName, TraceParent, WorkflowFailed, decode,
};

use crate::{
    dependency::{Dependency, GaveUp},
    policy::{limits::BUS_RETRY_DELAY, settle::Outcome},
    ports::{
        bus::{Bus, BusError, Published},
        clock::Clock,
        store::{Ending, Store, StoreError},
    },
    signals,
};

/// What a stage needs to end things.
#[derive(Clone)]
pub struct Closer {
    /// The stage that ends them.
    pub stage: StageName,
    /// The event bus.
    pub bus: Arc<dyn Bus>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The database as a dependency of this stage.
    pub database: Dependency,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

impl Closer {
    /// The envelope of an event that this stage publishes because of `cause`.
    pub fn meta(&self, cause: &Meta, data: &EventData, traceparent: TraceParent, attempt: u32) -> Meta {
        Meta {
            id: format!("{}.{}", cause.workflow_id.token(), data.event_type()),
            source: format!("throughline/{}", self.stage),
            time: self.clock.now(),
            workflow_id: cause.workflow_id.clone(),
            session_id: cause.session_id.clone(),
            user_id: cause.user_id.clone(),
            causation_id: Some(cause.id.clone()),
            traceparent,
            attempt,
        }
    }

    /// Publishes an event; `Err` says how the delivery that caused it must end.
    pub async fn publish(&self, event: &Event) -> Result<Published, PublishFailed> {
        self.bus.publish(event).await.map_err(|error| match error {
            error @ (BusError::TooLarge { .. } | BusError::Encode(_)) => PublishFailed::Never(error),
            error @ (BusError::Unavailable { .. }
            | BusError::Full(_)
            | BusError::NotSetUp(_)
            | BusError::Forbidden(_)) => PublishFailed::Now(error),
        })
    }

    /// Ends the workflow of `cause` as failed.
    pub async fn fail(&self, cause: &Meta, failed: WorkflowFailed, traceparent: TraceParent) -> Outcome {
        let now = self.clock.now();
        let closed =
            self.database.call(0, |_| self.store.fail(&cause.workflow_id, &cause.session_id, now)).await;
        let closed = match closed {
            Ok(closed) => closed,
            Err(gave_up) => return store_away(&gave_up),
        };
        if closed.ending == Ending::AsAsked {
            let (code, attempts) = (failed.code, failed.attempts);
            let data = EventData::WorkflowFailed(failed);
            let event = Event { meta: self.meta(cause, &data, traceparent, attempts), data };
            match self.publish(&event).await {
                Ok(Published::New) => {
                    signals::failed(self.stage, code);
                    tracing::warn!(stage = %self.stage, code = %code, workflow = %cause.workflow_id, "workflow failed");
                }
                Ok(Published::Already) => {}
                Err(failed) => return failed.outcome(),
            }
        }
        self.release(closed.next).await
    }

    /// Publishes the `input_validated` of a turn whose time has come.
    pub async fn release(&self, next: Option<Vec<u8>>) -> Outcome {
        let Some(bytes) = next else { return Outcome::Done };
        match decode(&bytes) {
            Ok(event) => match self.publish(&event).await {
                Ok(_) => Outcome::Done,
                Err(failed) => failed.outcome(),
            },
            // The database holds what we wrote ourselves; a newer version may have written it.
            Err(error) => {
                Outcome::Later { after: BUS_RETRY_DELAY, reason: format!("next turn unreadable: {error}") }
            }
        }
    }
}

/// An event was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishFailed {
    /// Not now; it may work later.
    #[error(transparent)]
    Now(BusError),
    /// It never will.
    #[error(transparent)]
    Never(BusError),
}

impl PublishFailed {
    /// How the delivery that caused the event ends.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Now(error) => Outcome::Later { after: BUS_RETRY_DELAY, reason: error.to_string() },
            Self::Never(error) => Outcome::Unusable {
                code: FailureCode::Internal,
                error: format!("its result was not accepted: {error}"),
            },
        }
    }
}

/// How a delivery ends whose work the database did not let happen.
pub fn store_away(gave_up: &GaveUp<StoreError>) -> Outcome {
    match gave_up.wait {
        Some(after) => Outcome::Later { after, reason: gave_up.last.to_string() },
        None => Outcome::Unusable { code: FailureCode::StoreUnavailable, error: gave_up.last.to_string() },
    }
}
