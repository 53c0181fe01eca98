//! Which workflows are listed, and how they are read: page by page, each from where the one before ended.

use throughline_actors::ports::store::{ListedTurn, TurnsQuery};
use throughline_schemas::{IdError, SessionId, Timestamp, UserId, WorkflowId};

use super::ListArgs;
use crate::{cli::Failure, period::Period, storage::Onlooker};

/// Workflows of one page.
const PAGE: usize = 500;

/// Where the next page begins: behind this one.
pub(super) type After = Option<(Timestamp, WorkflowId)>;

/// What the arguments ask for.
pub(super) struct Wanted {
    query: TurnsQuery,
    since: Option<Timestamp>,
    limit: usize,
}

impl Wanted {
    pub(super) fn new(args: &ListArgs) -> Result<Self, Failure> {
        let wrong = |flag: &str, error: IdError| Failure::usage(format!("{flag} {error}"));
        let user = args.user.as_ref().map(UserId::new).transpose().map_err(|e| wrong("--user", e))?;
        let session = args.session.as_ref().map(SessionId::new).transpose();
        let session = session.map_err(|e| wrong("--session", e))?;
        let period = Period::new(args.since.as_deref(), None).map_err(Failure::usage)?;
        let query = TurnsQuery { states: args.state.clone(), user, session, ..TurnsQuery::default() };
        Ok(Self { query, since: period.since, limit: usize::try_from(args.limit).unwrap_or(usize::MAX) })
    }

    /// The next workflows, after so many; `None` behind the last. `after` is moved on.
    pub(super) async fn next_page(
        &self,
        onlooker: &Onlooker,
        after: &mut After,
        so_far: usize,
    ) -> Result<Option<Vec<ListedTurn>>, Failure> {
        let limit = self.limit.saturating_sub(so_far).min(PAGE);
        // A page that was not full was the last.
        if limit == 0 || (so_far > 0 && after.is_none()) {
            return Ok(None);
        }
        let query = TurnsQuery { after: after.take(), limit, ..self.query.clone() };
        let mut page = onlooker.latest_turns(&query).await.map_err(|error| Failure::unavailable(&error))?;
        let is_full = page.len() == limit;
        page.retain(|turn| self.since.is_none_or(|since| turn.created_at >= since));
        if is_full && page.len() == limit {
            *after = page.last().map(|last| (last.created_at, last.workflow_id.clone()));
        }
        Ok((!page.is_empty()).then_some(page))
    }
}
