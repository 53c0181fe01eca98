//! Taking up a workflow that failed: from where, and with what.

use throughline_schemas::{
    EndedBy, Event, EventData, EventType, Metadata, SessionId, StageName, UserId, WorkflowFailed, WorkflowId,
    event::Redo, token,
};

/// Between the old workflow's id and the number of the attempt.
const MARK: &str = "-redo-";
/// Longest id, in bytes; see [`WorkflowId`].
const MAX_ID_BYTES: usize = 256;
/// So often may a workflow be taken up.
pub const MAX_ATTEMPTS: u32 = 1_000;

/// Why a workflow cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedoError {
    /// Nothing of it is stored.
    #[error(
        "no event of workflow {0} is stored: the id is wrong, it has not begun yet, or its events have expired"
    )]
    Unknown(WorkflowId),
    /// It has not ended.
    #[error("workflow {0} has not ended; what is under way needs no redo")]
    Open(WorkflowId),
    /// It ended well.
    #[error(
        "workflow {0} did not fail, its answer is stored; `throughline replay run {0}` shows what it would come to now"
    )]
    Saved(WorkflowId),
    /// Its input was never admitted.
    #[error("the input of workflow {0} was refused ({1}); correct it and publish it again")]
    Refused(WorkflowId, String),
    /// It is to begin where it never was.
    #[error(
        "workflow {workflow} failed in its {failed} stage; it can be taken up from there or before, not from {from}"
    )]
    TooLate {
        /// The workflow.
        workflow: WorkflowId,
        /// Where it failed.
        failed: StageName,
        /// Where it was to be taken up.
        from: StageName,
    },
}

/// What it takes to take up a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Who asked.
    pub user: UserId,
    /// The conversation.
    pub session: SessionId,
    /// What was asked, as it was validated.
    pub text: String,
    /// The publisher's metadata.
    pub metadata: Metadata,
    /// The link.
    pub redo: Redo,
}

impl Plan {
    /// Makes a plan from the events of a workflow, in their order. `from` may be left to where it failed.
    pub fn new(workflow: &WorkflowId, events: &[Event], from: Option<StageName>) -> Result<Self, RedoError> {
        if events.is_empty() {
            return Err(RedoError::Unknown(workflow.clone()));
        }
        let ended = |wanted: EventType| events.iter().find(move |event| event.event_type() == wanted);
        if ended(EventType::InteractionSaved).is_some() {
            return Err(RedoError::Saved(workflow.clone()));
        }
        let Some(Event { meta, data: EventData::WorkflowFailed(failed) }) = ended(EventType::WorkflowFailed)
        else {
            return Err(RedoError::Open(workflow.clone()));
        };
        // The last one carries all that was merged into the turn.
        let Some(request) = events.iter().rev().find_map(|event| event.data.request()) else {
            return Err(RedoError::Refused(workflow.clone(), failed.message.clone()));
        };
        let place = place(failed, events);
        let from = from.unwrap_or(place);
        if from > place {
            return Err(RedoError::TooLate { workflow: workflow.clone(), failed: place, from });
        }
        Ok(Self {
            user: meta.user_id.clone(),
            session: meta.session_id.clone(),
            text: request.user_input.clone(),
            metadata: request.metadata.clone(),
            redo: Redo { of: workflow.clone(), from },
        })
    }
}

/// The stage whose work was missing: what is on record says where a workflow stood that was ended from outside.
fn place(failed: &WorkflowFailed, events: &[Event]) -> StageName {
    let reached = match failed.code.ended_by() {
        EndedBy::Stage | EndedBy::DeadLetter => Some(failed.stage),
        EndedBy::Outside => {
            events.iter().filter_map(|event| StageName::consumer_of(event.event_type())).max()
        }
    };
    // What was admitted is not admitted again.
    reached.map_or(StageName::Context, |stage| stage.max(StageName::Context))
}

/// The id of the `attempt`-th workflow that takes up another: `w-redo-1`, `w-redo-2`.
pub fn id(workflow: &WorkflowId, attempt: u32) -> WorkflowId {
    let suffix = format!("{MARK}{attempt}");
    let old = workflow.as_str();
    let new = if old.len() + suffix.len() <= MAX_ID_BYTES {
        format!("{old}{suffix}")
    } else {
        // A token has 65 characters.
        format!("{}{suffix}", token(old))
    };
    WorkflowId::new(new).unwrap_or_else(|_| WorkflowId::unknown())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{FailureCode, decode};

    use super::*;

    #[test]
    fn who_ended_a_workflow_says_whether_its_stage_or_its_events_tell_where_it_stood() {
        let mut events: Vec<Event> = [
            include_bytes!("../../schemas/golden/v1/input_validated.json").as_slice(),
            include_bytes!("../../schemas/golden/v1/context_retrieved.json"),
            include_bytes!("../../schemas/golden/v1/external_data_fetched.json"),
            include_bytes!("../../schemas/golden/v1/workflow_failed.json"),
        ]
        .into_iter()
        .map(|golden| decode(golden).unwrap())
        .collect();
        let workflow = WorkflowId::new("w").unwrap();
        for (code, stage, expected) in [
            (FailureCode::TimedOut, StageName::Generation, StageName::Generation),
            (FailureCode::Poison, StageName::Context, StageName::Context),
            (FailureCode::Interrupted, StageName::Input, StageName::Generation),
            (FailureCode::Stalled, StageName::Input, StageName::Generation),
            // Nothing begins before the context: admission is over.
            (FailureCode::Internal, StageName::Input, StageName::Context),
        ] {
            let Some(EventData::WorkflowFailed(failed)) = events.last_mut().map(|event| &mut event.data)
            else {
                unreachable!("the last one is the failure");
            };
            (failed.code, failed.stage) = (code, stage);
            let plan = Plan::new(&workflow, &events, None).unwrap();
            assert_eq!(plan.redo.from, expected, "{code} in {stage}");
        }
    }
}
