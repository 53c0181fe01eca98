//! Putting the messages of each workflow together while reading a log in which they are interleaved.

use std::collections::{HashMap, VecDeque};

use throughline_actors::{
    replay::{Message, RecordedWorkflow, RecordedWorkflowError},
    stages::input::derived_id,
};
use throughline_schemas::{
    EventType, Ingress, IngressLimits, WorkflowId, decode, recording::RECORDED_SUBJECT,
};

use crate::bus::nats::StoredEvent;

/// Workflows that may be open at once; beyond it the oldest is given out as it is. Bounds memory.
const MAX_OPEN: usize = 50_000;
/// Everything that is stored of one workflow, in the order of the log.
#[derive(Debug, Clone)]
pub struct History {
    /// The workflow.
    pub workflow: WorkflowId,
    /// Its messages: inputs in the form in which they were published, then what stages made of them.
    pub events: Vec<StoredEvent>,
}

impl History {
    /// The same, read.
    pub fn read(self) -> Result<RecordedWorkflow, RecordedWorkflowError> {
        RecordedWorkflow::read(self.workflow, self.events.into_iter().map(message))
    }

    /// Whether it ended as failed.
    pub fn has_failed(&self) -> bool {
        self.events.iter().any(|event| event.event_type() == Some(EventType::WorkflowFailed))
    }

    /// Whether anything was made of its input.
    pub fn has_begun(&self) -> bool {
        self.events.iter().any(|event| event.event_type() != Some(EventType::UserInputReceived))
    }
}

fn message(event: StoredEvent) -> Message {
    let subject = subject_of(&event).to_owned();
    let StoredEvent { sequence, subject: _, stored_at, headers, body } = event;
    Message { subject, headers, body, sequence, stored_at }
}

/// The subject that a message had where it was recorded: ids of inputs that name none follow from it.
fn subject_of(event: &StoredEvent) -> &str {
    event.header(RECORDED_SUBJECT).unwrap_or(&event.subject)
}

/// The workflow that a stored message belongs to, as the input stage and the others see it; `None` if it says so in no
/// form that can be read.
pub fn workflow_of(event: &StoredEvent) -> Option<WorkflowId> {
    if event.event_type() != Some(EventType::UserInputReceived) {
        return decode(&event.body).ok().map(|event| event.meta.workflow_id);
    }
    let header = |name: &str| event.header(name);
    let derived = derived_id(subject_of(event), event.sequence, event.stored_at);
    match Ingress::read(subject_of(event), &event.body, header, derived, &IngressLimits::UNLIMITED).ok()? {
        Ok(input) => Some(input.workflow_id),
        Err(refused) => Some(refused.workflow_id),
    }
}

/// Workflows whose end has not been read yet.
#[derive(Debug, Default)]
pub struct Histories {
    open: HashMap<WorkflowId, Vec<StoredEvent>>,
    /// The same, oldest first; may name workflows that are closed by now.
    order: VecDeque<WorkflowId>,
}

impl Histories {
    /// Takes the next message; gives out what is complete with it. What cannot be read belongs to no workflow.
    pub fn add(&mut self, event: StoredEvent) -> Vec<History> {
        let Some(workflow) = workflow_of(&event) else { return Vec::new() };
        let ended = event.event_type().is_some_and(EventType::is_end);
        let order = &mut self.order;
        let events = self.open.entry(workflow.clone()).or_insert_with(|| {
            order.push_back(workflow.clone());
            Vec::new()
        });
        events.push(event);
        let mut done = Vec::new();
        if ended {
            done.extend(self.take(workflow));
        }
        while self.open.len() > MAX_OPEN {
            let Some(oldest) = self.order.pop_front() else { break };
            done.extend(self.take(oldest));
        }
        if self.order.len() > 2 * MAX_OPEN {
            self.order.retain(|workflow| self.open.contains_key(workflow));
        }
        done
    }

    /// Gives out what is open, oldest first.
    pub fn finish(mut self) -> Vec<History> {
        let mut rest: Vec<History> =
            self.open.drain().map(|(workflow, events)| History { workflow, events }).collect();
        rest.sort_by_key(|history| history.events.first().map(|event| event.sequence));
        rest
    }

    fn take(&mut self, workflow: WorkflowId) -> Option<History> {
        let events = self.open.remove(&workflow)?;
        Some(History { workflow, events })
    }
}
