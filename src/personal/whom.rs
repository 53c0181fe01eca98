//! Whose message a stored one is.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use sha2::{Digest, Sha256};
use throughline_actors::stages::input::derived_id;
use throughline_schemas::{
    EventType, Ingress, IngressLimits, SessionId, Tokens, UserId, WorkflowId, decode,
    recording::RECORDED_SUBJECT,
};

use crate::{bus::nats::StoredEvent, dead::Letter};

/// A user, or a session with everybody who spoke in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A user, in all sessions.
    User(UserId),
    /// A session.
    Session(SessionId),
}

impl Whom {
    /// `user` or `session`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Session(_) => "session",
        }
    }

    /// The id.
    pub fn id(&self) -> &str {
        match self {
            Self::User(user) => user.as_str(),
            Self::Session(session) => session.as_str(),
        }
    }

    /// The SHA-256 of the id in lower-case hex, for records that must not have the id.
    pub fn hash(&self) -> String {
        Sha256::digest(self.id()).iter().fold(String::new(), |mut hex, byte| {
            // Writing into a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.id())
    }
}

/// What one message says of whose it is.
enum Says {
    Of {
        user: UserId,
        session: SessionId,
        workflow: WorkflowId,
    },
    /// It cannot be read.
    Nothing,
}

/// A message of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    /// The token of its workflow, if it says so.
    pub(crate) workflow: Option<String>,
}

/// Tells the messages of a user or a session. Learns their workflows on the way: what says of its owner only the workflow
/// is told by that.
#[derive(Debug, Clone)]
pub(crate) struct Matcher {
    whom: Whom,
    /// The id as it stands in a JSON text.
    quoted: Vec<u8>,
    /// Tokens of their workflows.
    workflows: HashSet<String>,
}

impl Matcher {
    pub(crate) fn new(whom: Whom, workflows: impl IntoIterator<Item = WorkflowId>) -> Self {
        let quoted = serde_json::Value::from(whom.id()).to_string().into_bytes();
        let workflows = workflows.into_iter().map(|workflow| workflow.token()).collect();
        Self { whom, quoted, workflows }
    }

    /// What a message of the event log is to them; `None` if it is not theirs.
    ///
    /// A message that nobody can read is, if its subject has their session or workflow, or if their id stands in it in
    /// quotes: it is better lost than kept.
    pub(crate) fn owned(&mut self, event: &StoredEvent) -> Option<Owned> {
        let tokens = Tokens::of(&event.subject);
        match says(event) {
            Says::Of { user, session, workflow } => {
                let workflow = workflow.token();
                // An input that was refused may have named neither.
                let is_theirs = match &self.whom {
                    Whom::User(of) => user == *of || user == UserId::unknown() && self.knows(Some(&workflow)),
                    Whom::Session(of) => {
                        session == *of || session == SessionId::unknown() && self.knows(Some(&workflow))
                    }
                };
                if !is_theirs {
                    return None;
                }
                self.workflows.insert(workflow.clone());
                Some(Owned { workflow: Some(workflow) })
            }
            Says::Nothing => {
                let is_of_session = match &self.whom {
                    Whom::User(_) => false,
                    Whom::Session(of) => tokens.and_then(|tokens| tokens.session) == Some(&of.token()),
                };
                let workflow = tokens.and_then(|tokens| tokens.workflow);
                let is_theirs = is_of_session || self.knows(workflow) || self.is_named_in(&event.body);
                is_theirs.then(|| Owned { workflow: workflow.map(str::to_owned) })
            }
        }
    }

    /// The same of a dead letter, by the message that it holds; and the place of that message in the event log.
    pub(crate) fn owned_letter(&mut self, stored: &StoredEvent) -> Option<(Owned, Option<u64>)> {
        let letter = Letter::read(stored.clone());
        // `{ns}.dead.v1....`, where the message's own subject is not known.
        let subject = letter.subject.unwrap_or_else(|| stored.subject.replacen(".dead.", ".", 1));
        let Letter { headers, body, .. } = letter;
        let sequence = letter.sequence.unwrap_or(stored.sequence);
        let held = StoredEvent { sequence, subject, stored_at: stored.stored_at, headers, body };
        self.owned(&held).map(|owned| (owned, letter.sequence))
    }

    /// Whether a workflow is known to be theirs.
    pub(crate) fn knows(&self, token: Option<&str>) -> bool {
        token.is_some_and(|token| self.workflows.contains(token))
    }

    /// So many workflows are known to be theirs.
    pub(crate) fn workflows(&self) -> u64 {
        self.workflows.len() as u64
    }

    fn is_named_in(&self, body: &[u8]) -> bool {
        body.windows(self.quoted.len()).any(|some| some == self.quoted)
    }
}

fn says(event: &StoredEvent) -> Says {
    if event.event_type() != Some(EventType::UserInputReceived) {
        return match decode(&event.body) {
            Ok(event) => Says::Of {
                user: event.meta.user_id,
                session: event.meta.session_id,
                workflow: event.meta.workflow_id,
            },
            Err(_) => Says::Nothing,
        };
    }
    let subject = event.header(RECORDED_SUBJECT).unwrap_or(&event.subject);
    let derived = derived_id(subject, event.sequence, event.stored_at);
    match Ingress::read(subject, &event.body, |name| event.header(name), derived, &IngressLimits::UNLIMITED) {
        Ok(Ok(input)) => {
            Says::Of { user: input.user_id, session: input.session_id, workflow: input.workflow_id }
        }
        Ok(Err(refused)) => {
            Says::Of { user: refused.user_id, session: refused.session_id, workflow: refused.workflow_id }
        }
        Err(_) => Says::Nothing,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::Timestamp;

    use super::*;

    fn stored(subject: &str, body: &str) -> StoredEvent {
        StoredEvent {
            sequence: 1,
            subject: subject.to_owned(),
            stored_at: Timestamp::from_unix_ms(0),
            headers: Vec::new(),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn user(id: &str) -> Matcher {
        Matcher::new(Whom::User(UserId::new(id).unwrap()), [WorkflowId::new("known").unwrap()])
    }

    fn session(id: &str) -> Matcher {
        Matcher::new(Whom::Session(SessionId::new(id).unwrap()), [])
    }

    const BARE: &str = "n.v1.user_input_received";

    #[test]
    fn an_input_is_told_by_user_and_session() {
        let input = stored(BARE, r#"{"user_id":"ann","session_id":"s","user_input":"hi","workflow_id":"w"}"#);
        assert!(user("ann").owned(&input).is_some() && session("s").owned(&input).is_some());
        assert!(user("an").owned(&input).is_none() && session("t").owned(&input).is_none());
        // One that is refused says it as well.
        let refused = stored(BARE, r#"{"user_id":"ann","session_id":"s","workflow_id":"w"}"#);
        assert!(user("ann").owned(&refused).is_some() && session("s").owned(&refused).is_some());
        assert!(user("bob").owned(&refused).is_none());
    }

    #[test]
    fn what_nobody_can_read_is_told_by_its_subject_or_because_the_id_stands_in_it() {
        let later = stored("n.v2.tool_called.s.w", r#"{"of":"a later version","userid":"ann"}"#);
        assert!(user("ann").owned(&later).is_some() && session("s").owned(&later).is_some());
        assert!(user("nn").owned(&later).is_none() && session("t").owned(&later).is_none());
        assert!(user("bob").owned(&stored("n.v2.tool_called.s.known", "{}")).is_some());
        assert!(user("a\"b").owned(&stored(BARE, r#"[1, "a\"b""#)).is_some());
    }

    #[test]
    fn a_workflow_is_learnt_from_what_tells_it() {
        let mut ann = user("ann");
        let unreadable = stored("n.v2.tool_called.s.w", "{}");
        assert!(ann.owned(&unreadable).is_none());
        ann.owned(&stored(BARE, r#"{"user_id":"ann","session_id":"s","user_input":"hi","workflow_id":"w"}"#))
            .unwrap();
        assert!(ann.owned(&unreadable).is_some());
        assert_eq!(ann.workflows(), 2);
    }

    #[test]
    fn the_hash_is_that_of_the_id() {
        let ann = Whom::User(UserId::new("abc").unwrap());
        assert!(ann.hash().starts_with("ba7816bf8f01cfea"));
        assert_eq!(ann.to_string(), "user abc");
    }
}
