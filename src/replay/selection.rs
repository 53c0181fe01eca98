//! Which recorded workflows a command is about.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use throughline_schemas::{IdError, Namespace, SessionId, Timestamp, Tokens, WorkflowId};

use super::history::{History, workflow_of};
use crate::{
    bus::nats::{ReadRequest, StoredEvent},
    period::{Period, WhenError},
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
    /// A time is not one, or two of them enclose nothing.
    #[error(transparent)]
    When(#[from] WhenError),
}

/// Which past workflows a command is about.
#[derive(Debug, Clone)]
pub struct Selection {
    /// These; empty: all.
    pub workflows: Vec<WorkflowId>,
    session: Option<SessionId>,
    period: Period,
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
        let period = Period::new(args.since.as_deref(), args.until.as_deref())?;
        let workflows = workflows.map_err(id("WORKFLOW"))?;
        Ok(Self { workflows, session, period, failed: args.failed, limit: args.limit })
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
        request.since = self.period.since;
        request
    }

    /// Whether inputs without tokens have to be looked for.
    pub fn misses_bare_inputs(&self) -> bool {
        !self.workflows.is_empty() || self.session.is_some()
    }

    /// Whether something is stored after what is asked for.
    pub fn is_over(&self, stored_at: Timestamp) -> bool {
        self.period.is_over(stored_at)
    }

    /// Whether a message of a recording is among what would be read of a log.
    pub fn covers(&self, event: &StoredEvent) -> bool {
        self.period.contains(event.stored_at)
            && (self.workflows.is_empty()
                || workflow_of(event).is_some_and(|workflow| self.workflows.contains(&workflow)))
    }

    /// Whether a workflow of a recording is of the session that is asked for.
    pub fn is_of_session(&self, history: &History) -> bool {
        let Some(token) = self.session.as_ref().map(SessionId::token) else { return true };
        history
            .events
            .iter()
            .any(|event| Tokens::of(&event.subject).and_then(|of| of.session) == Some(token.as_str()))
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
        if let Some(since) = self.period.since {
            let _ = write!(words, " since {since}");
        }
        if let Some(until) = self.period.until {
            let _ = write!(words, " until {until}");
        }
        if let Some(limit) = self.limit {
            let _ = write!(words, ", at most {limit}");
        }
        words
    }
}
