//! Answers as they come: the live frames of one workflow, told so that nobody reads two attempts as one answer.

mod screen;
mod transcript;

use std::fmt;

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::{LiveFrame, WorkflowId};

pub(super) use screen::Screen;
pub(super) use transcript::{Ending, Notice, Transcript, Who, Whom, Words};

use super::Failure;
use crate::bus::nats::{NatsBus, StoredEvent};

/// The frames of one workflow, from the subscription on.
pub(super) struct Frames {
    subscriber: Subscriber,
    workflow: WorkflowId,
}

/// A frame, and the JSON that it came as.
pub(super) struct Received {
    pub(super) frame: LiveFrame,
    pub(super) json: Bytes,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("workflow", &self.workflow).finish_non_exhaustive()
    }
}

impl Frames {
    /// To be opened before the input is published, so that no frame is missed.
    pub(super) async fn open(bus: &NatsBus, workflow: &WorkflowId) -> Result<Self, BusError> {
        let subject = bus.namespace().live_frames(workflow);
        let subscriber = bus.client().subscribe(subject).await.map_err(|error| BusError::Unavailable {
            context: "listening for the answer as it comes".to_owned(),
            source: Some(error.into()),
        })?;
        Ok(Self { subscriber, workflow: workflow.clone() })
    }

    /// The next frame; never ready once the connection is closed. What is no frame of this workflow is passed over.
    /// Cancel-safe.
    async fn next(&mut self) -> Received {
        loop {
            let Some(message) = self.subscriber.next().await else { return std::future::pending().await };
            if let Some(received) = self.read(message.payload) {
                return received;
            }
        }
    }

    /// The next of the frames that have arrived.
    fn arrived(&mut self) -> Option<Received> {
        self.next().now_or_never()
    }

    fn read(&self, json: Bytes) -> Option<Received> {
        // Anyone may publish on the subject.
        let frame: LiveFrame = serde_json::from_slice(&json).ok()?;
        (frame.workflow_id == self.workflow).then_some(Received { frame, json })
    }
}

/// Hands every frame to `observe` until the workflow ends, and returns the event that is its end, which `end` waits for.
///
/// Frames are sent before the end is stored and come over the same connection; those that have arrived with the end are
/// heard first.
pub(super) async fn follow(
    frames: &mut Frames,
    end: impl Future<Output = Result<StoredEvent, Failure>>,
    mut observe: impl FnMut(Received) -> Result<(), Failure>,
) -> Result<StoredEvent, Failure> {
    tokio::pin!(end);
    let end = loop {
        tokio::select! {
            received = frames.next() => observe(received)?,
            end = &mut end => break end?,
        }
    };
    while let Some(received) = frames.arrived() {
        observe(received)?;
    }
    Ok(end)
}
