//! The live frames of one workflow.

use std::fmt;

use bytes::Bytes;
use futures_util::FutureExt;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::{LiveFrame, WorkflowId};

use crate::bus::nats::{LiveFrames, NatsBus, StoredEvent};

/// The frames of one workflow, from the subscription on.
pub struct Frames {
    frames: LiveFrames,
    workflow: WorkflowId,
}

/// A frame, and the JSON that it came as.
#[derive(Debug, Clone)]
pub struct Received {
    /// What it says.
    pub frame: LiveFrame,
    /// As it came, with what a later version may have added.
    pub json: Bytes,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("workflow", &self.workflow).finish_non_exhaustive()
    }
}

impl Frames {
    /// To be opened before the input is published, so that no frame is missed.
    pub async fn open(bus: &NatsBus, workflow: &WorkflowId) -> Result<Self, BusError> {
        Ok(Self { frames: bus.live_frames(workflow).await?, workflow: workflow.clone() })
    }

    /// The next frame; never ready once the connection is closed. What is no frame of this workflow is passed over.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Received {
        loop {
            let Some(json) = self.frames.next().await else { return std::future::pending().await };
            if let Some(received) = self.read(json) {
                return received;
            }
        }
    }

    /// The next of the frames that have arrived.
    pub(super) fn arrived(&mut self) -> Option<Received> {
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
/// handed over first.
pub(crate) async fn follow<E>(
    frames: &mut Frames,
    end: impl Future<Output = Result<StoredEvent, E>>,
    mut observe: impl FnMut(Received) -> Result<(), E>,
) -> Result<StoredEvent, E> {
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
