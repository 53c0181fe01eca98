//! Hearing the live frames of one workflow.

use std::fmt;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::WorkflowId;

use super::{Core, error::unavailable_because};

/// The frames of one workflow from the subscription on, as they come: anyone who may publish there may have sent them.
pub struct LiveFrames(Subscriber);

impl fmt::Debug for LiveFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveFrames").finish_non_exhaustive()
    }
}

impl LiveFrames {
    pub(super) async fn open(core: &Core, workflow: &WorkflowId) -> Result<Self, BusError> {
        let subject = core.settings.namespace.live_frames(workflow);
        let subscriber = core.connection.client.subscribe(subject).await;
        let subscriber = subscriber
            .map_err(|error| unavailable_because("subscribing to the answer as it comes", error))?;
        Ok(Self(subscriber))
    }

    /// The next frame; `None` once the connection is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        Some(self.0.next().await?.payload)
    }
}
