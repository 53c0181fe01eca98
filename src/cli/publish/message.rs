//! A `user_input_received` event, ready to be sent.

use bytes::Bytes;
use throughline_actors::ports::{
    clock::{Clock, Entropy},
    store::Fingerprint,
};
use throughline_schemas::{
    EncodeError, Event, EventData, EventType, Meta, Metadata, SessionId, Subject, TraceParent, UserId,
    WorkflowId, encode,
    event::{Redo, UserInputReceived, input::WhenBusy},
};

use crate::system::{SystemClock, SystemEntropy};

/// What a user says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Input {
    pub(in crate::cli) workflow: WorkflowId,
    pub(in crate::cli) user: UserId,
    pub(in crate::cli) session: SessionId,
    pub(in crate::cli) text: String,
    pub(in crate::cli) metadata: Metadata,
    pub(in crate::cli) when_busy: Option<WhenBusy>,
    /// The earlier workflow that it takes up.
    pub(in crate::cli) redo: Option<Redo>,
}

/// The event, encoded.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Message {
    pub(super) workflow: WorkflowId,
    pub(super) user: UserId,
    pub(super) session: SessionId,
    /// What is said.
    pub(super) text: String,
    pub(super) subject: Subject,
    /// De-duplicates. It tells what is said, too: another message with the same workflow id is not to vanish in the
    /// server, where nobody would tell its publisher.
    pub(super) id: String,
    /// Begins the workflow's trace.
    pub(super) traceparent: String,
    pub(super) body: Bytes,
}

impl Input {
    /// Makes the event, with a trace of its own. `source` says who publishes it.
    pub(in crate::cli) fn event(self, source: &str) -> Event {
        Event {
            meta: Meta {
                id: format!("{}.{}", self.workflow.token(), EventType::UserInputReceived),
                source: source.to_owned(),
                time: SystemClock.now(),
                workflow_id: self.workflow.clone(),
                session_id: self.session.clone(),
                user_id: self.user.clone(),
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

    /// Makes the message that this command sends.
    pub(in crate::cli) fn encode(self) -> Result<Message, EncodeError> {
        let said = Fingerprint::of(&self.user, &self.session, &self.text, None);
        let text = self.text.clone();
        let event = self.event("throughline/cli");
        Ok(Message {
            text,
            subject: event.subject(),
            body: encode(&event)?.into(),
            workflow: event.meta.workflow_id,
            user: event.meta.user_id,
            session: event.meta.session_id,
            id: format!("{}.{said}", event.meta.id),
            traceparent: event.meta.traceparent.to_string(),
        })
    }
}

/// What is taken up had failed.
fn caused_by(redo: Option<&Redo>) -> Option<String> {
    redo.map(|redo| format!("{}.{}", redo.of.token(), EventType::WorkflowFailed))
}

/// A new workflow id.
pub(in crate::cli) fn new_workflow_id() -> WorkflowId {
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
        let message = input.clone().encode().unwrap();
        let limits = IngressLimits { max_input_bytes: 100, max_metadata_bytes: 100 };
        let read =
            Ingress::read("", &message.body, |_| None, WorkflowId::unknown(), &limits).unwrap().unwrap();
        assert_eq!(read.workflow_id, workflow);
        assert_eq!((read.session_id, read.user_id), (input.session.clone(), input.user.clone()));
        assert_eq!((read.user_input, read.metadata), (input.text.clone(), input.metadata.clone()));
        assert_eq!(read.when_busy, input.when_busy);
        assert_eq!(read.traceparent.unwrap().to_string(), message.traceparent);
        assert!(message.traceparent.ends_with("-01"), "sampled");
        let event = decode(&message.body).unwrap();
        assert!(message.id.starts_with(&event.meta.id), "{}", message.id);
        let other = Input { text: "ho".to_owned(), ..input.clone() }.encode().unwrap();
        assert_ne!(other.id, message.id, "another text is another message");
        assert_eq!(input.encode().unwrap().id, message.id, "said again it is the same");
        assert_eq!(event.subject(), message.subject);
    }

    #[test]
    fn ids_and_traces_are_new_each_time() {
        assert_ne!(new_workflow_id(), new_workflow_id());
        assert_ne!(new_trace(), new_trace());
    }
}
