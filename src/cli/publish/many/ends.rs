//! The ends of the workflows that this command published, out of all that end meanwhile.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use async_nats::jetstream;
use throughline_schemas::{EventType, Subject, Tokens, UserId};
use tokio::time::Instant;

use super::Job;
use crate::{
    bus::nats::{EndWatch, NatsBus, StoredEvent},
    cli::{
        Failure, bus_error,
        publish::{end::is_of, message::Message},
    },
};

/// A workflow whose end has not come.
#[derive(Debug)]
pub(super) struct Expected {
    /// Line that published it.
    pub(super) line: u64,
    /// When it was first sent.
    pub(super) since: Instant,
    workflow: String,
    /// What stands for its session.
    session: String,
    user: UserId,
}

/// Hears the ends of a whole namespace and picks out ours.
pub(super) struct Watch {
    ends: EndWatch,
    expected: Expectations,
}

impl Watch {
    /// Opened before anything is published, so that no end is missed.
    pub(super) async fn open(bus: &NatsBus) -> Result<Self, Failure> {
        // From the last message that is stored now, by the server's own clock.
        let stream = jetstream::new(bus.client().clone()).get_stream(bus.names().events()).await;
        let since = match &stream {
            Ok(stream) if stream.cached_info().state.messages > 0 => {
                Some(stream.cached_info().state.last_timestamp.into())
            }
            // Watching says better what is wrong with the stream.
            _ => None,
        };
        let ends = bus.all_ends(since).await.map_err(|error| bus_error::failure(&error))?;
        Ok(Self { ends, expected: Expectations::default() })
    }

    pub(super) fn expect(&mut self, job: &Job) {
        if let Some(token) = self.expected.expect(job) {
            self.ends.expect(&token, addresses(&job.message, None));
        }
    }

    /// The message has this place in the log, and its refusal would name it.
    pub(super) fn sent(&mut self, job: &Job, sequence: Option<u64>) {
        let token = job.message.workflow.token();
        if self.expected.open.get(&token).is_some_and(|expected| expected.line == job.line) {
            self.ends.expect(&token, addresses(&job.message, sequence));
        }
    }

    pub(super) fn forget(&mut self, job: &Job) {
        // Another line may have published the same workflow.
        let token = job.message.workflow.token();
        if self.expected.open.get(&token).is_some_and(|expected| expected.line == job.line) {
            self.expected.open.remove(&token);
            self.ends.forget(&token);
        }
    }

    /// Workflows without an end.
    pub(super) fn unfinished(&self) -> usize {
        self.expected.open.len()
    }

    /// The next end of any workflow. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<StoredEvent, Failure> {
        self.ends.next().await.map_err(|error| bus_error::failure(&error))
    }

    /// Whose end this is: the workflow's id and what is known of it; `None` if it is none of ours, or not for the
    /// first time.
    pub(super) fn settle(&mut self, event: &StoredEvent) -> Option<(String, Expected)> {
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
    /// Tokens of ids that lines chose, so that one workflow is counted once however many lines name it.
    chosen: HashSet<String>,
}

impl Expectations {
    /// Under which token it is expected, if it was not before.
    fn expect(&mut self, job: &Job) -> Option<String> {
        let token = job.message.workflow.token();
        if job.chosen_id && !self.chosen.insert(token.clone()) {
            return None;
        }
        let Entry::Vacant(vacant) = self.open.entry(token.clone()) else { return None };
        {
            let Message { workflow, user, .. } = &job.message;
            self.conflicts.insert(workflow.conflict_base(), vacant.key().clone());
            vacant.insert(Expected {
                line: job.line,
                since: Instant::now(),
                workflow: workflow.as_str().to_owned(),
                session: job.session.clone(),
                user: user.clone(),
            });
        }
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
    use throughline_schemas::IngressLimits;

    use super::*;

    fn job(line: u64, workflow: &str) -> Job {
        let content =
            format!(r#"{{"user_id":"u","session_id":"s","user_input":"x","workflow_id":"{workflow}"}}"#);
        let limits = IngressLimits { max_input_bytes: 100, max_metadata_bytes: 100 };
        Job::read(line, content.as_bytes(), &limits).unwrap()
    }

    #[test]
    fn a_workflow_counts_once_however_many_lines_name_it_and_whenever_they_do() {
        let mut expected = Expectations::default();
        expected.expect(&job(1, "w"));
        expected.expect(&job(2, "w"));
        assert_eq!(expected.open.len(), 1);
        assert_eq!(expected.open.remove("w").unwrap().line, 1);
        expected.expect(&job(3, "w"));
        assert!(expected.open.is_empty(), "it has ended and been counted");
    }
}
