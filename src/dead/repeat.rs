//! What it takes to try a dead-lettered message again.
//!
//! A workflow that has failed is over: its events say so, and its session has gone on. So what is tried again is what
//! the user said, as a new workflow at the end of the same session, admitted like any other. Its id is made of the old
//! one and of the letter's, so that retrying a letter twice makes one workflow.

use throughline_actors::ports::clock::{Clock, Entropy};
use throughline_schemas::{
    EncodeError, Event, EventData, EventType, Meta, Metadata, Namespace, SessionId, StepPath, Subject,
    TraceParent, UserId, WorkflowId, encode,
    event::{UserInputReceived, input::WhenBusy},
    token,
};

use super::Letter;
use crate::{
    bus::nats::Repeat,
    system::{SystemClock, SystemEntropy},
};

/// Between the old workflow's id and the letter's.
const MARK: &str = "-retry-";
/// Longest id, in bytes; see [`WorkflowId`].
const MAX_ID_BYTES: usize = 256;
/// What the server, or the input stage, would act on in a message that is published again as it is.
const NOT_REPEATED: [&str; 2] = ["nats-", "throughline-"];

/// The message that tries a letter again.
pub fn repeat(letter: &Letter, ns: &Namespace) -> Result<Repeat, EncodeError> {
    if let Some(event) = letter.event()
        && let Some(request) = event.data.request()
    {
        let meta = &event.meta;
        let said = Said {
            workflow: &meta.workflow_id,
            session: &meta.session_id,
            user: &meta.user_id,
            text: request.user_input.clone(),
            metadata: request.metadata.clone(),
        };
        return said.again(letter, ns);
    }
    let place = format!("letter-{}", letter.id);
    if let Some(input) = WorkflowId::new(place).ok().and_then(|fallback| letter.input(fallback)) {
        let said = Said {
            workflow: &input.workflow_id,
            session: &input.session_id,
            user: &input.user_id,
            text: input.user_input.clone(),
            metadata: input.metadata.clone(),
        };
        return said.again(letter, ns);
    }
    Ok(as_it_was(letter, ns))
}

/// What a user said, whatever became of it.
struct Said<'a> {
    workflow: &'a WorkflowId,
    session: &'a SessionId,
    user: &'a UserId,
    text: String,
    metadata: Metadata,
}

impl Said<'_> {
    fn again(self, letter: &Letter, ns: &Namespace) -> Result<Repeat, EncodeError> {
        let workflow = next_id(self.workflow, letter.id);
        let random = u128::from(SystemEntropy.next_u64()) << 64 | u128::from(SystemEntropy.next_u64());
        let event = Event {
            meta: Meta {
                id: workflow.event_id(EventType::UserInputReceived),
                source: "throughline/dead".to_owned(),
                time: SystemClock.now(),
                workflow_id: workflow.clone(),
                session_id: self.session.clone(),
                user_id: self.user.clone(),
                step: StepPath::NONE,
                causation_id: Some(self.workflow.event_id(EventType::WorkflowFailed)),
                traceparent: TraceParent::root(random, SystemEntropy.next_u64()),
                attempt: 1,
            },
            data: EventData::UserInputReceived(UserInputReceived {
                user_id: self.user.clone(),
                session_id: self.session.clone(),
                user_input: self.text,
                workflow_id: Some(workflow.clone()),
                metadata: self.metadata,
                // Not what the message asked for, nor what the configuration says: letters of one session that are
                // retried together would be rejected, merged or interrupted by each other, and be gone.
                when_busy: Some(WhenBusy::Enqueue),
                redo: None,
            }),
        };
        Ok(Repeat {
            subject: Subject::new(EventType::UserInputReceived, self.session, &workflow).live(ns),
            message_id: event.meta.id.clone(),
            create_only: true,
            headers: vec![
                ("Content-Type".to_owned(), "application/cloudevents+json".to_owned()),
                ("traceparent".to_owned(), event.meta.traceparent.to_string()),
            ],
            body: encode(&event)?.into(),
            failed: Some((self.session.clone(), self.workflow.clone())),
            workflow: Some(workflow),
        })
    }
}

/// `w` becomes `w-retry-7`, and `w-retry-7` becomes `w-retry-9`.
fn next_id(old: &WorkflowId, letter: u64) -> WorkflowId {
    let old = old.as_str();
    let base = match old.rsplit_once(MARK) {
        Some((base, digits)) if !base.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => base,
        _ => old,
    };
    let suffix = format!("{MARK}{letter}");
    let new = if base.len() + suffix.len() <= MAX_ID_BYTES {
        format!("{base}{suffix}")
    } else {
        // A token has 65 characters.
        format!("{}{suffix}", token(base))
    };
    WorkflowId::new(new).unwrap_or_else(|_| WorkflowId::unknown())
}

/// The input stage refuses what it says: it is published as it was, and its publisher told again.
fn as_it_was(letter: &Letter, ns: &Namespace) -> Repeat {
    let kept = letter.headers.iter().filter(|(name, _)| {
        let lower = name.to_ascii_lowercase();
        !NOT_REPEATED.iter().any(|prefix| lower.starts_with(prefix))
    });
    let id = letter.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("nats-msg-id"));
    let id = id.map_or_else(|| "letter".to_owned(), |(_, id)| id.clone());
    Repeat {
        workflow: None,
        failed: None,
        subject: letter.subject.clone().unwrap_or_else(|| ns.bare_input()),
        message_id: format!("{id}{MARK}{}", letter.id),
        create_only: false,
        headers: kept.cloned().collect(),
        body: letter.body.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_tells_what_it_repeats_and_stays_an_id_however_often_it_is_repeated() {
        let next = |old: &str| next_id(&WorkflowId::new(old).unwrap(), 7).as_str().to_owned();
        assert_eq!(next("w"), "w-retry-7");
        assert_eq!(next("w-retry-3"), "w-retry-7");
        assert_eq!(next("w-retry-x"), "w-retry-x-retry-7");
        assert_eq!(next("-retry-3"), "-retry-3-retry-7");
        let long = next(&"ü".repeat(128));
        assert!(long.len() <= MAX_ID_BYTES && long.starts_with('h') && long.ends_with("-retry-7"), "{long}");
    }
}
