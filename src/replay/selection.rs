//! Which past workflows a command is about.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use throughline_actors::ports::clock::Clock;
use throughline_schemas::{IdError, Namespace, SessionId, Timestamp, WorkflowId};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::history::{History, workflow_of};
use crate::{
    bus::nats::{ReadRequest, StoredEvent},
    cli::since,
    system::SystemClock,
};

/// What people type.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionArgs {
    /// These workflows [default: all]
    #[arg(value_name = "WORKFLOW")]
    pub workflows: Vec<String>,
    /// Only workflows of this session
    #[arg(long, value_name = "ID", conflicts_with = "workflows")]
    pub session: Option<String>,
    /// Only what was stored since then: a span such as 10m, 2h, 1d, or an instant such as 2026-01-31T09:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only what was stored before then
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    /// Only workflows that failed
    #[arg(long)]
    pub failed: bool,
    /// At most so many workflows, the earliest first
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Read from this recording instead of the log; no NATS server is needed
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// A selection that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// An id is not one.
    #[error("{flag} {error}")]
    Id {
        /// Where it stands.
        flag: &'static str,
        /// Why not.
        error: IdError,
    },
    /// A time is not one.
    #[error("{flag} {text:?} is neither a span (30s, 10m, 2h, 1d) nor an instant (2026-01-31T09:00:00Z)")]
    When {
        /// Where it stands.
        flag: &'static str,
        /// What it is.
        text: String,
    },
    /// Nothing can be in between.
    #[error("--until is not after --since")]
    Empty,
}

/// Which past workflows a command is about.
#[derive(Debug, Clone)]
pub struct Selection {
    /// These; empty: all.
    pub workflows: Vec<WorkflowId>,
    session: Option<SessionId>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    failed: bool,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Selection {
    /// Reads what was typed.
    pub fn new(args: &SelectionArgs) -> Result<Self, SelectionError> {
        let id = |flag| move |error| SelectionError::Id { flag, error };
        let workflows = args.workflows.iter().map(WorkflowId::new).collect::<Result<_, _>>();
        let session = args.session.as_ref().map(SessionId::new).transpose().map_err(id("--session"))?;
        let since = args.since.as_deref().map(|text| when("--since", text)).transpose()?;
        let until = args.until.as_deref().map(|text| when("--until", text)).transpose()?;
        if since.zip(until).is_some_and(|(since, until)| until <= since) {
            return Err(SelectionError::Empty);
        }
        let workflows = workflows.map_err(id("WORKFLOW"))?;
        Ok(Self { workflows, session, since, until, failed: args.failed, limit: args.limit })
    }

    /// What to read. Inputs on the subject without tokens are not among what is asked for by workflow or session.
    pub fn request(&self, ns: &Namespace) -> ReadRequest {
        let filters = match (&self.workflows[..], &self.session) {
            ([], None) => vec![ns.all_events()],
            ([], Some(session)) => vec![ns.events_of_session(None, session)],
            (workflows, _) => {
                workflows.iter().map(|workflow| ns.events_of_workflow(None, workflow)).collect()
            }
        };
        let mut request = ReadRequest::events(String::new());
        request.filters = filters;
        request.since = self.since;
        request
    }

    /// Whether inputs without tokens have to be looked for.
    pub fn misses_bare_inputs(&self) -> bool {
        !self.workflows.is_empty() || self.session.is_some()
    }

    /// Whether something is stored after what is asked for.
    pub fn is_over(&self, stored_at: Timestamp) -> bool {
        self.until.is_some_and(|until| stored_at >= until)
    }

    /// Whether a message of a recording is among what would be read of a log.
    pub fn covers(&self, event: &StoredEvent) -> bool {
        let in_time =
            self.since.is_none_or(|since| event.stored_at >= since) && !self.is_over(event.stored_at);
        in_time
            && (self.workflows.is_empty()
                || workflow_of(event).is_some_and(|workflow| self.workflows.contains(&workflow)))
    }

    /// Whether a workflow of a recording is of the session that is asked for.
    pub fn is_of_session(&self, history: &History) -> bool {
        let Some(token) = self.session.as_ref().map(SessionId::token) else { return true };
        history.events.iter().any(|event| event.subject.split('.').nth(3) == Some(token.as_str()))
    }

    /// Whether a workflow is asked for.
    pub fn wants(&self, history: &History) -> bool {
        !self.failed || history.has_failed()
    }

    /// In words, for reports.
    pub fn in_words(&self) -> String {
        // Writing to a string cannot fail.
        let mut words = match (&self.workflows[..], &self.session) {
            ([], None) => "all workflows".to_owned(),
            ([], Some(session)) => format!("workflows of session {session}"),
            ([one], _) => format!("workflow {one}"),
            (many, _) => format!("{} workflows", many.len()),
        };
        if self.failed {
            words.push_str(" that failed");
        }
        if let Some(since) = self.since {
            let _ = write!(words, " since {since}");
        }
        if let Some(until) = self.until {
            let _ = write!(words, " until {until}");
        }
        if let Some(limit) = self.limit {
            let _ = write!(words, ", at most {limit}");
        }
        words
    }
}

fn when(flag: &'static str, text: &str) -> Result<Timestamp, SelectionError> {
    if let Ok(span) = since::parse(text) {
        let now = OffsetDateTime::from(SystemClock.now());
        return Ok(Timestamp::from(now - Duration::try_from(span).unwrap_or(Duration::ZERO)));
    }
    let instant = OffsetDateTime::parse(text.trim(), &Rfc3339);
    instant
        .map(Timestamp::from)
        .map_err(|_| SelectionError::When { flag, text: text.chars().take(40).collect() })
}
