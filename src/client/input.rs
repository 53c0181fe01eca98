//! What a user says, and the `user_input_received` event that it becomes.

use throughline_actors::ports::{
    clock::{Clock, Entropy},
    store::Fingerprint,
};
use throughline_schemas::{
    EncodeError, Event, EventData, EventType, Meta, Metadata, SessionId, StepPath, TraceParent, UserId,
    WorkflowId, encode,
    event::{Redo, UserInputReceived, input::WhenBusy},
};

use crate::{
    bus::nats::InputMessage,
    system::{SystemClock, SystemEntropy},
};

/// What a user says.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Publishing the same id twice runs the workflow once.
    pub workflow: WorkflowId,
    /// Who says it.
    pub user: UserId,
    /// Workflows of one session run one at a time, in the order in which they were published.
    pub session: SessionId,
    /// What is said.
    pub text: String,
    /// Passed along unchanged; in events, templates and source URLs.
    pub metadata: Metadata,
    /// What becomes of it where the session is busy; `None`: what the workers are configured to do.
    pub when_busy: Option<WhenBusy>,
    /// The earlier workflow that it takes up.
    pub redo: Option<Redo>,
}

/// An input, encoded and ready to be sent.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) workflow: WorkflowId,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    /// What is said.
    pub(crate) text: String,
    pub(crate) outgoing: InputMessage,
}

impl Input {
    /// An input with a new workflow id, without metadata.
    pub fn new(user: UserId, session: SessionId, text: impl Into<String>) -> Self {
        Self {
            workflow: new_workflow_id(),
            user,
            session,
            text: text.into(),
            metadata: Metadata::default(),
            when_busy: None,
            redo: None,
        }
    }

    /// Makes the event, with a trace of its own. `source` says who publishes it.
    pub fn event(self, source: &str) -> Event {
        Event {
            meta: Meta {
                id: self.workflow.event_id(EventType::UserInputReceived),
                source: source.to_owned(),
                time: SystemClock.now(),
                workflow_id: self.workflow.clone(),
                session_id: self.session.clone(),
                user_id: self.user.clone(),
                step: StepPath::NONE,
                causation_id: caused_by(self.redo.as_ref()),
                traceparent: new_trace(),
                attempt: 1,
            },
            data: EventData::UserInputReceived(UserInputReceived {
                user_id: self.user,
                session_id: self.session,
                user_input: self.text,
                workflow_id: Some(self.workflow),
                metadata: self.metadata,
                when_busy: self.when_busy,
                redo: self.redo,
            }),
        }
    }

    /// Makes the message that is sent. `source` says who publishes it, as in `throughline/cli`.
    pub fn encode(self, source: &str) -> Result<Message, EncodeError> {
        let said = Fingerprint::of(&self.user, &self.session, &self.text, None);
        let text = self.text.clone();
        let event = self.event(source);
        let outgoing = InputMessage {
            subject: event.subject(),
            // It tells what is said, too: another message with the same workflow id is not to vanish in the server, where
            // its publisher would wait in vain.
            id: format!("{}.{said}", event.meta.id),
            traceparent: event.meta.traceparent.to_string(),
            body: encode(&event)?.into(),
        };
        let Meta { workflow_id: workflow, user_id: user, session_id: session, .. } = event.meta;
        Ok(Message { workflow, user, session, text, outgoing })
    }
}

impl Message {
    /// The workflow that it begins.
    pub fn workflow(&self) -> &WorkflowId {
        &self.workflow
    }
}

/// What is taken up had failed.
fn caused_by(redo: Option<&Redo>) -> Option<String> {
    redo.map(|redo| redo.of.event_id(EventType::WorkflowFailed))
}

/// A new workflow id.
pub fn new_workflow_id() -> WorkflowId {
    let now = u64::try_from(SystemClock.now().unix_ms()).unwrap_or(0);
    let bytes = random_u128().to_be_bytes();
    let mut random = [0; 10];
    random.copy_from_slice(&bytes[..10]);
    WorkflowId::generate(now, random)
}

fn new_trace() -> TraceParent {
    TraceParent::root(random_u128(), SystemEntropy.next_u64())
}

fn random_u128() -> u128 {
    u128::from(SystemEntropy.next_u64()) << 64 | u128::from(SystemEntropy.next_u64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;
    use throughline_schemas::{Ingress, IngressLimits, decode};

    use super::*;

    #[test]
    fn the_input_stage_reads_what_is_sent() {
        let workflow = WorkflowId::new("a b").unwrap();
        let input = Input {
            workflow: workflow.clone(),
            user: UserId::new("ann").unwrap(),
            session: SessionId::new("* >").unwrap(),
            text: "hi".to_owned(),
            metadata: Metadata::from_iter([("k".to_owned(), Value::from(1))]),
            when_busy: Some(WhenBusy::Merge),
            redo: None,
        };
        let message = input.clone().encode("test").unwrap();
        let limits = IngressLimits { max_input_bytes: 100, max_metadata_bytes: 100 };
        let read = Ingress::read("", &message.outgoing.body, |_| None, WorkflowId::unknown(), &limits)
            .unwrap()
            .unwrap();
        assert_eq!(read.workflow_id, workflow);
        assert_eq!((read.session_id, read.user_id), (input.session.clone(), input.user.clone()));
        assert_eq!((read.user_input, read.metadata), (input.text.clone(), input.metadata.clone()));
        assert_eq!(read.when_busy, input.when_busy);
        assert_eq!(read.traceparent.unwrap().to_string(), message.outgoing.traceparent);
        assert!(message.outgoing.traceparent.ends_with("-01"), "sampled");
        let event = decode(&message.outgoing.body).unwrap();
        assert!(message.outgoing.id.starts_with(&event.meta.id), "{}", message.outgoing.id);
        let other = Input { text: "ho".to_owned(), ..input.clone() }.encode("test").unwrap();
        assert_ne!(other.outgoing.id, message.outgoing.id, "another text is another message");
        assert_eq!(
            input.encode("test").unwrap().outgoing.id,
            message.outgoing.id,
            "said again it is the same"
        );
        assert_eq!(event.subject(), message.outgoing.subject);
    }

    #[test]
    fn ids_and_traces_are_new_each_time() {
        assert_ne!(new_workflow_id(), new_workflow_id());
        assert_ne!(new_trace(), new_trace());
    }
}
