//! The live frames that all stages send on `{ns}.live.{workflow}`: which stage works, and what it waits for.
//!
//! Frames are sent and forgotten. Nothing waits for them, and nothing depends on them.

use std::time::Duration;

use throughline_schemas::{LiveFrame, LiveKind, StageName, WaitReason, WorkflowId};

use crate::dependency::whole_millis;
use crate::ports::bus::Broadcast;

/// Sends a frame, if the bus takes it now.
pub(crate) fn send(bus: &dyn Broadcast, frame: &LiveFrame) {
    match serde_json::to_vec(frame) {
        // A frame that was not taken is missed by its number, if it has one.
        Ok(json) => _ = bus.live(&frame.workflow_id, json.into()),
        Err(error) => tracing::error!(%error, "a live frame could not be written"),
    }
}

/// A stage begins its work on a workflow. Once an answer is complete nothing more is said: a reader that knows no frames
/// beside those of calls would take one for another delivery, which makes the answer void.
pub(crate) fn stage_begins(bus: &dyn Broadcast, workflow: &WorkflowId, stage: StageName) {
    match stage {
        StageName::Context | StageName::External | StageName::Generation => {}
        StageName::Input | StageName::Persistence => return,
    }
    send(bus, &LiveFrame { stage: Some(stage), ..LiveFrame::new(workflow.clone(), LiveKind::Stage) });
}

/// A workflow waits for its session's turn.
pub(crate) fn waits_for_turn(bus: &dyn Broadcast, workflow: &WorkflowId) {
    send(
        bus,
        &LiveFrame {
            stage: Some(StageName::Input),
            why: Some(WaitReason::Session),
            reason: Some("an earlier message of its session has not ended".to_owned()),
            ..LiveFrame::new(workflow.clone(), LiveKind::Waiting)
        },
    );
}

/// A workflow waits for a place among the running turns of its user.
pub(crate) fn waits_for_share(bus: &dyn Broadcast, workflow: &WorkflowId) {
    send(
        bus,
        &LiveFrame {
            stage: Some(StageName::Input),
            why: Some(WaitReason::UserShare),
            reason: Some("its user has its share of running workflows".to_owned()),
            ..LiveFrame::new(workflow.clone(), LiveKind::Waiting)
        },
    );
}

/// A workflow waits for a data source.
pub(crate) fn waits_for_source(
    bus: &dyn Broadcast,
    workflow: &WorkflowId,
    source: &str,
    why: WaitReason,
    reason: String,
    wait: Duration,
) {
    send(
        bus,
        &LiveFrame {
            stage: Some(StageName::External),
            source: Some(source.to_owned()),
            why: Some(why),
            reason: Some(reason),
            again_in_ms: Some(whole_millis(wait)),
            ..LiveFrame::new(workflow.clone(), LiveKind::Waiting)
        },
    );
}
