//! The event with which a workflow ends whose answer was saved.

use sha2::{Digest, Sha256};
use throughline_schemas::{
    EventData, Timestamp, WorkflowId,
    event::{InteractionSaved, ResponseGenerated},
};

/// The event.
pub(crate) fn event(workflow: &WorkflowId, generated: &ResponseGenerated, saved_at: Timestamp) -> EventData {
    EventData::InteractionSaved(InteractionSaved {
        interaction_id: interaction_id(workflow, generated.request.received_at),
        response: generated.response.clone(),
        usage: generated.usage,
        cost_usd: generated.cost_usd,
        degraded: generated.degraded.clone(),
        received_at: generated.request.received_at,
        saved_at,
    })
}

/// A time-ordered id that is the same for every attempt to save the same workflow.
pub(crate) fn interaction_id(workflow: &WorkflowId, received_at: Timestamp) -> String {
    let digest = Sha256::digest(workflow.as_str());
    WorkflowId::derive(received_at, &digest).to_string()
}
