//! Which events are read, and which of them are shown.

use throughline_schemas::{EventType, IdError, Namespace, SessionId, Subject, Timestamp, WorkflowId};

use crate::{
    bus::nats::{Log, ReadRequest, StoredEvent},
    cli::{EventsArgs, Failure},
    period::Period,
};

/// What the arguments select.
#[derive(Debug)]
pub(super) struct Selection {
    filters: Vec<String>,
    /// Everything of the one workflow that is asked for.
    of_workflow: Option<String>,
    event_type: Option<EventType>,
    /// Whether the filters find inputs only by the tokens of their subjects.
    by_tokens: bool,
    period: Period,
    /// From when on reading finds everything.
    from: Option<Timestamp>,
    follow: bool,
}

impl Selection {
    pub(super) fn new(args: &EventsArgs, ns: &Namespace) -> Result<Self, Failure> {
        let id = |flag: &str, error: IdError| Failure::usage(format!("{flag} {error}"));
        let workflow =
            args.workflow.as_ref().map(WorkflowId::new).transpose().map_err(|e| id("--workflow", e))?;
        let session =
            args.session.as_ref().map(SessionId::new).transpose().map_err(|e| id("--session", e))?;
        let period = Period::new(args.since.as_deref(), args.until.as_deref()).map_err(Failure::usage)?;
        // Of those that failed the failures are read; each leads to the rest of its workflow.
        let event_type = if args.failed { Some(EventType::WorkflowFailed) } else { args.r#type };
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
        // With a session, one token less to look for.
        let of_workflow =
            workflow.as_ref().map(|workflow| ns.events_with(None, session.as_ref(), Some(workflow)));
        Ok(Self {
            filters,
            of_workflow,
            event_type,
            by_tokens,
            period,
            from: period.since,
            follow: args.follow,
        })
    }

    /// Reading from a place of the log on.
    pub(super) fn request_from(&self, sequence: u64) -> ReadRequest {
        ReadRequest { from: Some(sequence), ..self.request() }
    }

    /// Whether everything asked for was stored after this.
    pub(super) fn is_before(&self, at: Timestamp) -> bool {
        self.period.since.is_some_and(|since| at < since)
    }

    pub(super) fn request(&self) -> ReadRequest {
        ReadRequest {
            log: Log::Events,
            filters: self.filters.clone(),
            since: self.from,
            from: None,
            follow: self.follow,
        }
    }

    /// What to look up instead of reading through the log, where that does.
    pub(super) fn lookup(&self) -> Option<&str> {
        self.of_workflow.as_deref()
    }

    /// Whether events of this type have to be read.
    pub(super) fn reads(&self, kind: EventType) -> bool {
        // What it led to says where an input without tokens is.
        let leads =
            self.event_type == Some(EventType::UserInputReceived) && kind == EventType::InputValidated;
        leads || self.event_type.is_none_or(|wanted| wanted == kind)
    }

    /// Whether reading goes on with what is stored later.
    pub(super) fn follows(&self) -> bool {
        self.follow
    }

    /// Has nothing looked for that was stored before.
    pub(super) fn begin_at(&mut self, at: Timestamp) {
        self.from = Some(self.from.map_or(at, |from| from.max(at)));
    }

    /// Whether an event that was read, or found otherwise, is asked for.
    pub(super) fn shows(&self, event: &StoredEvent) -> bool {
        self.event_type.is_none_or(|wanted| event.event_type() == Some(wanted))
            && self.period.contains(event.stored_at)
    }

    /// Whether this event, and all that follow it in the log, are stored after what is asked for.
    pub(super) fn is_over(&self, event: &StoredEvent) -> bool {
        self.period.is_over(event.stored_at)
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
            ..EventsArgs::default()
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
        let looked_up = |session: Option<&str>| {
            let (workflow, session) = (Some("w".to_owned()), session.map(str::to_owned));
            let args = EventsArgs { workflow, session, ..EventsArgs::default() };
            let selection = Selection::new(&args, &Namespace::new("t").unwrap()).unwrap();
            selection.lookup().unwrap().to_owned()
        };
        assert_eq!((looked_up(None), looked_up(Some("s"))), ("t.v1.*.*.w".into(), "t.v1.*.s.w".into()));
        assert!(!filters(Some("> *"), None, None).concat().contains("> *"));
    }

    #[test]
    fn of_those_that_failed_the_failures_are_read_and_reading_ends_with_the_period() {
        let args = EventsArgs {
            failed: true,
            session: Some("s".to_owned()),
            until: Some("1970-01-01T00:00:01Z".to_owned()),
            ..EventsArgs::default()
        };
        let selection = Selection::new(&args, &Namespace::new("t").unwrap()).unwrap();
        assert_eq!(selection.filters, ["t.v1.workflow_failed.s.*"]);
        let stored = |ms| StoredEvent {
            sequence: 1,
            subject: "t.v1.workflow_failed.s.w".to_owned(),
            stored_at: Timestamp::from_unix_ms(ms),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        assert!(selection.shows(&stored(999)) && !selection.is_over(&stored(999)));
        assert!(!selection.shows(&stored(1000)) && selection.is_over(&stored(1000)));
    }
}
