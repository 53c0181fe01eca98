//! Where events live on NATS: `{ns}.v1.{event_type}.{session}.{workflow}`, and behind that the path of the step for types
//! of which a workflow may have several events.

use std::{borrow::Cow, fmt};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{EventKey, EventType, SessionId, StepPath, WorkflowId, token, version::MAJOR};

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

    /// The events, without steps, of these of their types, sessions and workflows:
    /// `{ns}.v1.{type or *}.{session or *}.{workflow or *}`.
    pub fn events_with(
        &self,
        event_type: Option<EventType>,
        session: Option<&SessionId>,
        workflow: Option<&WorkflowId>,
    ) -> String {
        let event_type = event_type.map_or("*", EventType::as_str);
        let session = session.map_or_else(|| "*".to_owned(), SessionId::token);
        let workflow = workflow.map_or_else(|| "*".to_owned(), WorkflowId::token);
        format!("{self}.v{MAJOR}.{event_type}.{session}.{workflow}")
    }

    /// The same, of one type or all, of one session: `{ns}.v1.{type or *}.{session}.*`.
    pub fn events_of_session(&self, event_type: Option<EventType>, session: &SessionId) -> String {
        self.events_with(event_type, Some(session), None)
    }

    /// The same, of one type or all, of one workflow: `{ns}.v1.{type or *}.*.{workflow}`.
    pub fn events_of_workflow(&self, event_type: Option<EventType>, workflow: &WorkflowId) -> String {
        self.events_with(event_type, None, Some(workflow))
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
    key: EventKey,
    session: String,
    workflow: String,
}

impl Subject {
    /// The subject of an event of this workflow.
    pub fn new(key: impl Into<EventKey>, session: &SessionId, workflow: &WorkflowId) -> Self {
        Self { key: key.into(), session: session.token(), workflow: workflow.token() }
    }

    /// Where a workflow of this session may end.
    pub fn ends_of(session: &SessionId, workflow: &WorkflowId) -> impl Iterator<Item = Self> {
        EventType::ends().map(|end| Self::new(end, session, workflow))
    }

    /// What type of event it addresses.
    pub fn event_type(&self) -> EventType {
        self.key.event_type
    }

    /// Which event of its workflow it addresses.
    pub fn key(&self) -> &EventKey {
        &self.key
    }

    /// The session's token.
    pub fn session_token(&self) -> &str {
        &self.session
    }

    /// The workflow's token.
    pub fn workflow_token(&self) -> &str {
        &self.workflow
    }

    /// `{ns}.v1.{event_type}.{session}.{workflow}`, and `.{step path}` if there is one.
    pub fn live(&self, ns: &Namespace) -> String {
        self.under(&format!("{ns}.v{MAJOR}"))
    }

    /// `{ns}.stored.v1.` and the same: where the server tells the event once it is stored.
    pub fn stored(&self, ns: &Namespace) -> String {
        self.under(&format!("{ns}.stored.v{MAJOR}"))
    }

    /// `{ns}.dead.v1.` and the same.
    pub fn dead(&self, ns: &Namespace) -> String {
        self.under(&format!("{ns}.dead.v{MAJOR}"))
    }

    fn under(&self, prefix: &str) -> String {
        let Self { key: EventKey { event_type, step }, session, workflow } = self;
        match step.as_str() {
            "" => format!("{prefix}.{event_type}.{session}.{workflow}"),
            step => format!("{prefix}.{event_type}.{session}.{workflow}.{step}"),
        }
    }

    /// Whether a stored body says of itself that it is the event of this address. What stands on a subject need not belong
    /// there: a server also writes acknowledgements to any subject that a publisher names for them. Only the envelope is
    /// read, of whichever version; inputs have many forms and are not judged.
    pub fn is_of(&self, body: &[u8]) -> bool {
        belongs_on(self.event_type(), &self.workflow, self.key.step.as_str(), body)
    }

    /// Reads a subject of this namespace, dead or live. The bare input subject has no tokens and gives `None`.
    pub fn parse(ns: &Namespace, subject: &str) -> Option<Self> {
        let rest = subject.strip_prefix(ns.as_str())?.strip_prefix('.')?;
        let rest = rest.strip_prefix("dead.").unwrap_or(rest);
        // Behind the workflow stands what a path of a step is, points and all.
        let mut parts = rest.strip_prefix('v')?.splitn(5, '.');
        if parts.next()?.parse::<u32>().ok()? != MAJOR {
            return None;
        }
        let event_type: EventType = parts.next()?.parse().ok()?;
        let session = parts.next()?.to_owned();
        let workflow = parts.next()?.to_owned();
        let step = match parts.next() {
            None => StepPath::NONE,
            Some(step) if event_type.has_steps() => step.parse().ok()?,
            Some(_) => return None,
        };
        Some(Self { key: EventKey::of_step(event_type, step), session, workflow })
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
    /// The path of the step, if it has one.
    pub step: Option<&'a str>,
}

/// See [`Subject::is_of`].
fn belongs_on(event_type: EventType, workflow: &str, step: &str, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow, rename = "type")]
        event_type: Cow<'a, str>,
        #[serde(borrow)]
        workflowid: Cow<'a, str>,
        #[serde(borrow, default)]
        step: Option<&'a RawValue>,
    }
    // Types without steps may have an attribute of that name which is somebody else's.
    let of_step = |told: Option<&RawValue>| {
        !event_type.has_steps()
            || told.is_some_and(|told| {
                serde_json::from_str(told.get()).is_ok_and(|told: Cow<'_, str>| told == step)
            })
    };
    event_type == EventType::UserInputReceived
        || serde_json::from_slice(body).is_ok_and(|envelope: Envelope<'_>| {
            envelope.event_type == event_type.as_str()
                && token(&envelope.workflowid) == workflow
                && of_step(envelope.step)
        })
}

impl<'a> Tokens<'a> {
    /// The same as [`Subject::is_of`]; of a subject without a workflow nothing is judged.
    pub fn is_of(&self, body: &[u8]) -> bool {
        match (self.event_type(), self.workflow) {
            (Some(event_type), Some(workflow)) => {
                belongs_on(event_type, workflow, self.step.unwrap_or_default(), body)
            }
            _ => true,
        }
    }

    /// Takes `{ns}.v1.{event_type}` or `{ns}.stored.v1.{event_type}`, bare or with tokens behind it, apart.
    pub fn of(subject: &'a str) -> Option<Self> {
        let (_, rest) = subject.split_once('.')?;
        let mut parts = rest.strip_prefix("stored.").unwrap_or(rest).splitn(5, '.').skip(1);
        Some(Self { kind: parts.next()?, session: parts.next(), workflow: parts.next(), step: parts.next() })
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
    fn a_step_stands_behind_the_workflow_and_types_without_steps_have_none() {
        let ns = Namespace::new("ns").unwrap();
        let (session, workflow) = (SessionId::new("s").unwrap(), WorkflowId::new("w").unwrap());
        let key = EventKey::of_step(EventType::ResponseGenerated, "draft-2.7".parse().unwrap());
        let subject = Subject::new(key, &session, &workflow);
        assert_eq!(subject.live(&ns), "ns.v1.response_generated.s.w.draft-2.7");
        assert_eq!(subject.stored(&ns), "ns.stored.v1.response_generated.s.w.draft-2.7");
        assert_eq!(subject.dead(&ns), "ns.dead.v1.response_generated.s.w.draft-2.7");
        let tokens = Tokens::of("ns.v1.tool_called.s.w.draft-2.7").unwrap();
        assert_eq!((tokens.workflow, tokens.step), (Some("w"), Some("draft-2.7")));
        // A stranger's message there is no event of the workflow.
        for event_type in EventType::ALL {
            assert!(!event_type.has_steps());
            assert_eq!(Subject::parse(&ns, &format!("ns.v1.{event_type}.s.w.draft")), None);
        }
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
