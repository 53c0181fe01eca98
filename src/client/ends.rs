//! The ends of many workflows that were published here, out of all that end meanwhile.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use throughline_actors::ports::bus::BusError;
use throughline_schemas::{EventType, Subject, Tokens, UserId};
use tokio::time::Instant;

use super::{end::is_of, input::Message};
use crate::bus::nats::{EndWatch, NatsBus, StoredEvent};

/// A workflow whose end has not come.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The publisher's number of the message.
    pub(crate) number: u64,
    /// When it was first sent.
    pub(crate) since: Instant,
    workflow: String,
    /// What stands for its session.
    session: String,
    user: UserId,
}

/// Hears the ends of a whole namespace and picks out ours.
pub(crate) struct Ends {
    ends: EndWatch,
    expected: Expectations,
}

impl Ends {
    /// Opened before anything is published, so that no end is missed.
    pub(crate) async fn open(bus: &NatsBus) -> Result<Self, BusError> {
        // From the last message that is stored now, by the server's own clock. Watching says better what is wrong with the
        // stream.
        let log = bus.log_state().await.ok();
        let since = log.and_then(|log| log.stored_at).map(|(_, last)| last);
        Ok(Self { ends: bus.all_ends(since).await?, expected: Expectations::default() })
    }

    /// A message with this number is about to be sent. `is_chosen`: its workflow id was chosen by somebody, so that other
    /// messages may name it, which then count once.
    pub(crate) fn expect(&mut self, number: u64, message: &Message, is_chosen: bool) {
        if let Some(token) = self.expected.expect(number, message, is_chosen) {
            self.ends.expect(&token, addresses(message, None));
        }
    }

    /// The message has this place in the log, and its refusal would name it.
    pub(crate) fn published(&mut self, number: u64, message: &Message, sequence: Option<u64>) {
        let token = message.workflow.token();
        if self.expected.open.get(&token).is_some_and(|expected| expected.number == number) {
            self.ends.expect(&token, addresses(message, sequence));
        }
    }

    /// The message was not published.
    pub(crate) fn forget(&mut self, number: u64, message: &Message) {
        // Another message may have published the same workflow.
        let token = message.workflow.token();
        if self.expected.open.get(&token).is_some_and(|expected| expected.number == number) {
            self.expected.open.remove(&token);
            self.ends.forget(&token);
        }
    }

    /// Workflows without an end.
    pub(crate) fn unfinished(&self) -> usize {
        self.expected.open.len()
    }

    /// The next end of any workflow. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<StoredEvent, BusError> {
        self.ends.next().await
    }

    /// Whose end this is: the workflow's id and what is known of it; `None` if it is none of ours, or not for the
    /// first time.
    pub(crate) fn settle(&mut self, event: &StoredEvent) -> Option<(String, Expected)> {
        let tokens = Tokens::of(&event.subject)?;
        let token = self.expected.named_by(tokens.workflow?);
        // The end of another message that has the same workflow id is none of ours.
        let is_ours =
            |expected: &Expected| tokens.session == Some(&expected.session) && is_of(event, &expected.user);
        self.expected.open.get(&token).filter(|expected| is_ours(expected))?;
        let mut expected = self.expected.open.remove(&token)?;
        self.ends.forget(&token);
        Some((std::mem::take(&mut expected.workflow), expected))
    }
}

/// Where a message's end may stand: on the subjects of its workflow, or on that of its refusal.
fn addresses(message: &Message, sequence: Option<u64>) -> Vec<Subject> {
    let Message { session, workflow, .. } = message;
    let refusal = sequence
        .map(|sequence| Subject::new(EventType::WorkflowFailed, session, &workflow.of_conflict(sequence)));
    Subject::ends_of(session, workflow).chain(refusal).collect()
}

#[derive(Debug, Default)]
struct Expectations {
    /// By the workflow's token.
    open: HashMap<String, Expected>,
    /// Tokens of workflows by what stands for them in the ids of conflicts.
    conflicts: HashMap<String, String>,
    /// Tokens of ids that were chosen, so that one workflow is counted once however many messages name it.
    chosen: HashSet<String>,
}

impl Expectations {
    /// Under which token it is expected, if it was not before.
    fn expect(&mut self, number: u64, message: &Message, is_chosen: bool) -> Option<String> {
        let token = message.workflow.token();
        if is_chosen && !self.chosen.insert(token.clone()) {
            return None;
        }
        let Entry::Vacant(vacant) = self.open.entry(token.clone()) else { return None };
        let Message { workflow, user, session, .. } = message;
        self.conflicts.insert(workflow.conflict_base(), vacant.key().clone());
        vacant.insert(Expected {
            number,
            since: Instant::now(),
            workflow: workflow.as_str().to_owned(),
            session: session.token(),
            user: user.clone(),
        });
        Some(token)
    }

    /// The token of the workflow that an end is about: its own, or that of the id which a conflict was about.
    fn named_by(&self, token: &str) -> String {
        let base = token.rsplit_once("-conflict-").map(|(base, _)| base);
        let refused =
            base.filter(|_| !self.open.contains_key(token)).and_then(|base| self.conflicts.get(base));
        refused.map_or_else(|| token.to_owned(), Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{SessionId, WorkflowId};

    use super::*;
    use crate::client::Input;

    fn message(workflow: &str) -> Message {
        let input = Input::new(UserId::new("u").unwrap(), SessionId::new("s").unwrap(), "x");
        Input { workflow: WorkflowId::new(workflow).unwrap(), ..input }.encode("test").unwrap()
    }

    #[test]
    fn a_workflow_counts_once_however_many_messages_name_it_and_whenever_they_do() {
        let mut expected = Expectations::default();
        expected.expect(1, &message("w"), true);
        expected.expect(2, &message("w"), true);
        assert_eq!(expected.open.len(), 1);
        assert_eq!(expected.open.remove("w").unwrap().number, 1);
        expected.expect(3, &message("w"), true);
        assert!(expected.open.is_empty(), "it has ended and been counted");
    }
}
