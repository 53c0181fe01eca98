//! Which events are read, and which of them are shown.

use throughline_actors::ports::clock::Clock;
use throughline_schemas::{EventType, IdError, Namespace, SessionId, Subject, Timestamp, WorkflowId};
use time::OffsetDateTime;

use crate::{
    bus::nats::{Log, ReadRequest, StoredEvent},
    cli::{EventsArgs, Failure, since},
    system::SystemClock,
};

/// What the arguments select.
#[derive(Debug)]
pub(super) struct Selection {
    filters: Vec<String>,
    event_type: Option<EventType>,
    /// Whether the filters find inputs only by the tokens of their subjects.
    by_tokens: bool,
    since: Option<Timestamp>,
    follow: bool,
}

impl Selection {
    pub(super) fn new(args: &EventsArgs, ns: &Namespace) -> Result<Self, Failure> {
        let id = |flag: &str, error: IdError| Failure::usage(format!("{flag} {error}"));
        let workflow =
            args.workflow.as_ref().map(WorkflowId::new).transpose().map_err(|e| id("--workflow", e))?;
        let session =
            args.session.as_ref().map(SessionId::new).transpose().map_err(|e| id("--session", e))?;
        let since = args
            .since
            .as_deref()
            .map(|text| since::parse(text).map_err(|error| Failure::usage(format!("--since {error}"))))
            .transpose()?
            .map(|span| Timestamp::from(OffsetDateTime::from(SystemClock.now()) - span));
        let event_type = args.r#type;
        let by_tokens = workflow.is_some() || session.is_some();
        let kinds: Vec<EventType> = match event_type {
            None => EventType::ALL.to_vec(),
            // What it led to says where an input without tokens is.
            Some(EventType::UserInputReceived) if by_tokens => {
                vec![EventType::UserInputReceived, EventType::InputValidated]
            }
            Some(event_type) => vec![event_type],
        };
        let mut filters: Vec<String> =
            kinds.into_iter().map(|kind| filter(ns, kind, workflow.as_ref(), session.as_ref())).collect();
        if !by_tokens {
            match event_type {
                // One filter costs the server less than one of each type.
                None => filters = vec![ns.all_events()],
                Some(EventType::UserInputReceived) => filters.push(ns.bare_input()),
                Some(_) => {}
            }
        }
        Ok(Self { filters, event_type, by_tokens, since, follow: args.follow })
    }

    pub(super) fn request(&self) -> ReadRequest {
        ReadRequest {
            log: Log::Events,
            filters: self.filters.clone(),
            since: self.since,
            follow: self.follow,
            apart: false,
        }
    }

    /// Whether an event that was read, or found otherwise, is asked for.
    pub(super) fn shows(&self, event: &StoredEvent) -> bool {
        let kind = event.subject.split('.').nth(2);
        self.event_type.is_none_or(|wanted| kind == Some(wanted.as_str()))
            && self.since.is_none_or(|since| event.stored_at >= since)
    }

    /// Whether inputs without tokens have to be looked for.
    pub(super) fn misses_bare_inputs(&self) -> bool {
        self.by_tokens && self.event_type.is_none_or(|wanted| wanted == EventType::UserInputReceived)
    }
}

fn filter(
    ns: &Namespace,
    kind: EventType,
    workflow: Option<&WorkflowId>,
    session: Option<&SessionId>,
) -> String {
    match (workflow, session) {
        (Some(workflow), Some(session)) => Subject::new(kind, session, workflow).live(ns),
        (Some(workflow), None) => ns.events_of_workflow(Some(kind), workflow),
        (None, Some(session)) => ns.events_of_session(Some(kind), session),
        (None, None) => ns.events_of(kind),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn filters(workflow: Option<&str>, session: Option<&str>, kind: Option<EventType>) -> Vec<String> {
        let args = EventsArgs {
            workflow: workflow.map(str::to_owned),
            session: session.map(str::to_owned),
            r#type: kind,
            since: None,
            follow: false,
            json: false,
        };
        Selection::new(&args, &Namespace::new("t").unwrap()).unwrap().filters
    }

    #[test]
    fn filters_narrow_down_and_contain_no_text_of_the_user() {
        assert_eq!(filters(None, None, None), ["t.v1.>"]);
        let inputs = filters(None, None, Some(EventType::UserInputReceived));
        assert_eq!(inputs, ["t.v1.user_input_received.>", "t.v1.user_input_received"]);
        assert_eq!(filters(Some("w"), None, Some(EventType::WorkflowFailed)), ["t.v1.workflow_failed.*.w"]);
        assert_eq!(filters(None, Some("s"), Some(EventType::WorkflowFailed)), ["t.v1.workflow_failed.s.*"]);
        assert_eq!(filters(Some("w"), Some("s"), None).len(), EventType::ALL.len());
        assert_eq!(filters(Some("w"), Some("s"), None)[1], "t.v1.input_validated.s.w");
        assert!(!filters(Some("> *"), None, None).concat().contains("> *"));
    }
}
