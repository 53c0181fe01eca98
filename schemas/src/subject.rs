//! Where events live on NATS: `{ns}.v1.{event_type}.{session}.{workflow}`.

use std::{borrow::Cow, fmt};

use serde::Deserialize;

use crate::{EventType, SessionId, WorkflowId, token, version::MAJOR};

/// Longest namespace, in bytes.
const MAX_NAMESPACE_BYTES: usize = 32;

/// First token of every subject; separates environments that share a NATS account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace(String);

/// The text is not a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("namespace {0:?} must be 1 to {MAX_NAMESPACE_BYTES} characters of A-Z, a-z, 0-9, _ and -")]
pub struct NamespaceError(pub String);

impl Namespace {
    /// Checks and takes a namespace.
    pub fn new(name: impl Into<String>) -> Result<Self, NamespaceError> {
        let name = name.into();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if plain && (1..=MAX_NAMESPACE_BYTES).contains(&name.len()) {
            Ok(Self(name))
        } else {
            Err(NamespaceError(name))
        }
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every event of this namespace: `{ns}.v1.>`.
    pub fn all_events(&self) -> String {
        format!("{self}.v{MAJOR}.>")
    }

    /// Every event of this namespace as the server tells it once it is stored: `{ns}.stored.v1.>`.
    pub fn all_stored(&self) -> String {
        format!("{self}.stored.v{MAJOR}.>")
    }

    /// The same of one type: `{ns}.stored.v1.{event_type}.>`.
    pub fn stored_of(&self, event_type: EventType) -> String {
        format!("{self}.stored.v{MAJOR}.{event_type}.>")
    }

    /// The subject on which publishers may send input without tokens: `{ns}.v1.user_input_received`.
    pub fn bare_input(&self) -> String {
        format!("{self}.v{MAJOR}.{}", EventType::UserInputReceived)
    }

    /// Every event of one type: `{ns}.v1.{event_type}.>`.
    pub fn events_of(&self, event_type: EventType) -> String {
        format!("{self}.v{MAJOR}.{event_type}.>")
    }

    /// Every event, of one type or all, of one session: `{ns}.v1.{type or *}.{session}.*`.
    pub fn events_of_session(&self, event_type: Option<EventType>, session: &SessionId) -> String {
        let event_type = event_type.map_or("*", EventType::as_str);
        format!("{self}.v{MAJOR}.{event_type}.{}.*", session.token())
    }

    /// Every event, of one type or all, of one workflow: `{ns}.v1.{type or *}.*.{workflow}`.
    pub fn events_of_workflow(&self, event_type: Option<EventType>, workflow: &WorkflowId) -> String {
        let event_type = event_type.map_or("*", EventType::as_str);
        format!("{self}.v{MAJOR}.{event_type}.*.{}", workflow.token())
    }

    /// Every dead letter, and what was done with them: `{ns}.dead.>`.
    pub fn all_dead(&self) -> String {
        format!("{self}.dead.>")
    }

    /// Every dead letter, without what was done with them: `{ns}.dead.v1.>`.
    pub fn dead_letters(&self) -> String {
        format!("{self}.dead.v{MAJOR}.>")
    }

    /// Where it is kept what was done with a dead letter: `{ns}.dead.done.{sequence}`.
    pub fn dead_record(&self, letter: u64) -> String {
        format!("{self}.dead.done.{letter}")
    }

    /// Where the pieces of a workflow's answer are told as they come: `{ns}.live.{workflow}`.
    pub fn live_frames(&self, workflow: &WorkflowId) -> String {
        format!("{self}.live.{}", workflow.token())
    }

    /// A control subject, for example `{ns}.control.breaker`.
    pub fn control(&self, topic: &str) -> String {
        format!("{self}.control.{topic}")
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The exact address of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    event_type: EventType,
    session: String,
    workflow: String,
}

impl Subject {
    /// The subject of an event of this workflow.
    pub fn new(event_type: EventType, session: &SessionId, workflow: &WorkflowId) -> Self {
        Self { event_type, session: session.token(), workflow: workflow.token() }
    }

    /// Where a workflow of this session may end.
    pub fn ends_of(session: &SessionId, workflow: &WorkflowId) -> impl Iterator<Item = Self> {
        EventType::ends().map(|end| Self::new(end, session, workflow))
    }

    /// What type of event it addresses.
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// The session's token.
    pub fn session_token(&self) -> &str {
        &self.session
    }

    /// The workflow's token.
    pub fn workflow_token(&self) -> &str {
        &self.workflow
    }

    /// `{ns}.v1.{event_type}.{session}.{workflow}`
    pub fn live(&self, ns: &Namespace) -> String {
        format!("{ns}.v{MAJOR}.{}.{}.{}", self.event_type, self.session, self.workflow)
    }

    /// `{ns}.stored.v1.{event_type}.{session}.{workflow}`: where the server tells the event once it is stored.
    pub fn stored(&self, ns: &Namespace) -> String {
        format!("{ns}.stored.v{MAJOR}.{}.{}.{}", self.event_type, self.session, self.workflow)
    }

    /// `{ns}.dead.v1.{event_type}.{session}.{workflow}`
    pub fn dead(&self, ns: &Namespace) -> String {
        format!("{ns}.dead.v{MAJOR}.{}.{}.{}", self.event_type, self.session, self.workflow)
    }

    /// Whether a stored body says of itself that it is the event of this address. What stands on a subject need not belong
    /// there: a server also writes acknowledgements to any subject that a publisher names for them. Only the envelope is
    /// read, of whichever version; inputs have many forms and are not judged.
    pub fn is_of(&self, body: &[u8]) -> bool {
        belongs_on(self.event_type, &self.workflow, body)
    }

    /// Reads a subject of this namespace, dead or live. The bare input subject has no tokens and gives `None`.
    pub fn parse(ns: &Namespace, subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix(ns.as_str())?.strip_prefix('.')?;
        let rest = rest.strip_prefix("dead.").unwrap_or(rest);
        let mut parts = rest.strip_prefix('v')?.split('.');
        if parts.next()?.parse::<u32>().ok()? != MAJOR {
            return None;
        }
        let event_type = parts.next()?.parse().ok()?;
        let session = parts.next()?.to_owned();
        let workflow = parts.next()?.to_owned();
        parts.next().is_none().then_some(Self { event_type, session, workflow })
    }
}

/// What the subject of a stored event tells, in whichever namespace and of whichever version: readers look at imported
/// events and at those of later versions, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens<'a> {
    /// The name of its type, known here or not.
    pub kind: &'a str,
    /// The session's token; a bare input has none.
    pub session: Option<&'a str>,
    /// The workflow's token; a bare input has none.
    pub workflow: Option<&'a str>,
}

/// See [`Subject::is_of`].
fn belongs_on(event_type: EventType, workflow: &str, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, rename = "type")]
        event_type: Cow<'a, str>,
        #[serde(borrow)]
        workflowid: Cow<'a, str>,
    }
    event_type == EventType::UserInputReceived
        || serde_json::from_slice(body).is_ok_and(|envelope: Envelope<'_>| {
            envelope.event_type == event_type.as_str() && token(&envelope.workflowid) == workflow
        })
}

impl<'a> Tokens<'a> {
    /// The same as [`Subject::is_of`]; of a subject without a workflow nothing is judged.
    pub fn is_of(&self, body: &[u8]) -> bool {
        match (self.event_type(), self.workflow) {
            (Some(event_type), Some(workflow)) => belongs_on(event_type, workflow, body),
            _ => true,
        }
    }

    /// Takes `{ns}.v1.{event_type}` or `{ns}.stored.v1.{event_type}`, bare or with tokens behind it, apart.
    pub fn of(subject: &'a str) -> Option<Self> {
        let mut parts = subject.split('.').skip(1);
        if parts.next()? == "stored" {
            parts.next()?;
        }
        Some(Self { kind: parts.next()?, session: parts.next(), workflow: parts.next() })
    }

    /// The type, if it is known here.
    pub fn event_type(&self) -> Option<EventType> {
        self.kind.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_an_event_that_says_so_belongs_on_its_subject() {
        let (session, workflow) = (SessionId::new("s").unwrap(), WorkflowId::new("order 7").unwrap());
        let subject = Subject::new(EventType::InteractionSaved, &session, &workflow);
        let event = |kind: &str, of: &str| {
            serde_json::json!({"type": kind, "workflowid": of, "data": {}, "new": [1]}).to_string()
        };
        assert!(subject.is_of(event("interaction_saved", "order 7").as_bytes()));
        for other in [
            event("interaction_saved", "order 8"),
            event("workflow_failed", "order 7"),
            r#"{"stream":"throughline_EVENTS","seq":7}"#.to_owned(),
            "+ACK".to_owned(),
            String::new(),
        ] {
            assert!(!subject.is_of(other.as_bytes()), "{other}");
        }
        assert!(Subject::new(EventType::UserInputReceived, &session, &workflow).is_of(b"whatever"));
    }

    #[test]
    fn a_subject_reads_back_live_and_dead_and_never_contains_user_text() {
        let ns = Namespace::new("throughline").unwrap();
        let session = SessionId::new("> *.evil\r\nPUB").unwrap();
        let workflow = WorkflowId::new("w-1").unwrap();
        let subject = Subject::new(EventType::ContextRetrieved, &session, &workflow);
        assert_eq!(
            subject.live(&ns),
            format!("throughline.v1.context_retrieved.{}.w-1", crate::token("> *.evil\r\nPUB"))
        );
        assert_eq!(Subject::parse(&ns, &subject.live(&ns)), Some(subject.clone()));
        assert_eq!(Subject::parse(&ns, &subject.dead(&ns)), Some(subject));
        assert_eq!(Subject::parse(&ns, &ns.bare_input()), None);
        assert_eq!(Subject::parse(&ns, "throughline.v2.context_retrieved.s.w"), None);
    }

    #[test]
    fn tokens_are_read_of_any_namespace_and_version() {
        let tokens = |subject| Tokens::of(subject).map(|of: Tokens<'_>| (of.kind, of.session, of.workflow));
        assert_eq!(tokens("a.v1.input_validated.s.w"), Some(("input_validated", Some("s"), Some("w"))));
        assert_eq!(tokens("b.v2.tool_called.s.w"), Some(("tool_called", Some("s"), Some("w"))));
        assert_eq!(tokens("a.v1.user_input_received"), Some(("user_input_received", None, None)));
        assert_eq!(tokens("a.stored.v1.input_validated.s.w"), tokens("a.v1.input_validated.s.w"));
        assert_eq!(tokens("a.v1"), None);
        assert_eq!(tokens("a.stored.v1"), None);
        let of_later = Tokens::of("b.v2.tool_called.s.w").unwrap();
        assert_eq!(of_later.event_type(), None);
    }

    #[test]
    fn namespaces_are_plain_tokens() {
        for bad in ["", "a.b", "a b", "*", &"x".repeat(33)] {
            assert!(Namespace::new(bad).is_err(), "{bad}");
        }
    }
}
