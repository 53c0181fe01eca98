//! Puts ends back into the database that the log has and it has not, in the background.
//!
//! The database keeps a mark: every end up to that place of the log is in it. As an end is committed before it is
//! published, the mark may follow the end of the log by itself. A mark that has gone back, or lies behind the end of the
//! log when a process starts, means that what is between has to be looked at: most of it is there, and what is not is
//! recorded as it was published. Several processes may do that at once; recording an end twice changes nothing.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use throughline_schemas::{Event, EventData, EventType, FailureCode, Subject, decode};
use tokio::time::Instant;

use crate::{
    metrics,
    policy::settle::Outcome,
    ports::store::{KnownEnd, TurnsQuery},
    workflow::{
        end_from_log,
        stage_context::{PublishFailed, StageContext},
    },
};

/// Ends that are read at once.
const PAGE: u64 = 256;
/// Ends that are compared with the database at the same time.
const AT_ONCE: usize = 8;
/// Between two pages: workers need log and database, too.
const PAUSE: Duration = Duration::from_millis(50);
/// Pages to one step of the mark.
const PAGES_TO_A_MARK: usize = 16;
/// How an input fails that never begins.
const REFUSED_ON_ADMISSION: [FailureCode; 5] = [
    FailureCode::InvalidInput,
    FailureCode::SessionBusy,
    FailureCode::NotSessionOwner,
    FailureCode::TooManyOpen,
    FailureCode::Merged,
];
/// How often progress is logged while something has to be put back.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Repaired {
    /// Ends that were looked at.
    pub(crate) looked_at: u64,
    /// Ends that were put back.
    pub(crate) restored: u64,
    /// Ends that could not be put back: what they answer has left the log.
    pub(crate) lost: u64,
}

/// Compares the ends behind `from` with the database, up to the end of the log as it is now, and puts back what is
/// missing. Moves the mark along. The error says why it ended early; it may be begun again.
pub(crate) async fn repair(context: &StageContext, from: u64) -> Result<Repaired, String> {
    let last = context.bus.position().await.map_err(|error| error.to_string())?.last;
    // A log that is shorter than what the database has seen of it was recreated: nothing of it is known.
    let (mut mark, mut done) = (from, if from > last { 0 } else { from });
    let mut repaired = Repaired::default();
    let mut told_at = Instant::now();
    let mut pages = 0_usize;
    while done < last {
        let page = context.bus.ends_from(done + 1, PAGE).await.map_err(|error| error.to_string())?;
        let found = stream::iter(page.ends).map(async |body| one(context, &body).await);
        let found: Vec<Result<Found, String>> = found.buffered(AT_ONCE).collect().await;
        for one in found {
            repaired.looked_at += 1;
            match one? {
                Found::There => {}
                Found::Restored => repaired.restored += 1,
                Found::Lost => repaired.lost += 1,
            }
        }
        if repaired.restored > 0 && (pages == 0 || told_at.elapsed() >= TELL_EVERY) {
            told_at = Instant::now();
            tracing::warn!(
                restored = repaired.restored,
                at = page.read_to,
                of = last,
                "the database is older than the log; ends that it has forgotten are put back"
            );
        }
        done = page.read_to.max(done + 1);
        pages += 1;
        if pages.is_multiple_of(PAGES_TO_A_MARK) && done < last {
            set_mark(context, &mut mark, done).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    set_mark(context, &mut mark, last).await?;
    if repaired.restored > 0 {
        metrics::stores_differ("older_database");
        let Repaired { looked_at, restored, lost } = repaired;
        tracing::warn!(
            looked_at,
            restored,
            lost,
            "the database has the ends of the log again; no model was asked for them"
        );
    }
    Ok(repaired)
}

async fn set_mark(context: &StageContext, mark: &mut u64, to: u64) -> Result<(), String> {
    // The process that moved it meanwhile has looked at the same ends.
    context.store.set_mark(*mark, to).await.map_err(|error| error.to_string())?;
    *mark = to;
    Ok(())
}

enum Found {
    There,
    Restored,
    Lost,
}

async fn one(context: &StageContext, body: &[u8]) -> Result<Found, String> {
    let Ok(end) = decode(body) else { return Ok(Found::Lost) };
    let known = context.store.end(&end.meta.workflow_id).await.map_err(|error| error.to_string())?;
    let is_missing = match known {
        None | Some(KnownEnd::Open) => true,
        // What was published first stays true, and an answer was published before the failure of a turn whose end was
        // forgotten.
        Some(KnownEnd::Failed(_)) => end.event_type() == EventType::InteractionSaved,
        Some(KnownEnd::Saved(_) | KnownEnd::Forgotten { .. }) => false,
    };
    if !is_missing || is_of_another_message(context, &end).await.map_err(|failed| reason(failed.outcome()))? {
        return Ok(Found::There);
    }
    if known.is_some() && has_another_message(context, &end).await? {
        return Ok(Found::There);
    }
    let recorded = end_from_log::close(context, &end, 0).await.map_err(reason)?;
    let Some(recorded) = recorded else { return Ok(Found::Lost) };
    match context.release(recorded.next).await {
        Outcome::Done | Outcome::TakenOver => Ok(Found::Restored),
        outcome @ (Outcome::Later { .. } | Outcome::Died { .. } | Outcome::Unusable { .. }) => {
            Err(reason(outcome))
        }
    }
}

/// A failure may be published for a message that never had a turn, under an id that is another's. It says nothing about
/// that one: a turn of this session would have begun here. What is refused on admission has an end of its own, and no
/// beginning.
async fn is_of_another_message(context: &StageContext, end: &Event) -> Result<bool, PublishFailed> {
    let EventData::WorkflowFailed(failed) = &end.data else { return Ok(false) };
    if REFUSED_ON_ADMISSION.contains(&failed.code) {
        return Ok(false);
    }
    let beginning = Subject::new(EventType::InputValidated, &end.meta.session_id, &end.meta.workflow_id);
    Ok(!context.exists(&beginning).await?)
}

/// Whether the id of an end has been given to another message since the database forgot it. A turn of another session is
/// not closed with an answer to another user; one of the same session is refused when its time comes, and its publisher
/// gets a conflict.
async fn has_another_message(context: &StageContext, end: &Event) -> Result<bool, String> {
    let query = TurnsQuery::of(end.meta.workflow_id.clone());
    let turns = context.store.latest_turns(query).await.map_err(|error| error.to_string())?;
    let Some(turn) = turns.first() else { return Ok(false) };
    if turn.session_id != end.meta.session_id {
        return Ok(true);
    }
    let request = end_from_log::request_of(context, end).await.map_err(|failed| reason(failed.outcome()))?;
    Ok(match (request, turn.input_sequence) {
        (Some((request, _)), Some(sequence)) if !turn.state.is_end() => request.input_sequence != sequence,
        (Some(_) | None, Some(_) | None) => false,
    })
}

fn reason(outcome: Outcome) -> String {
    match outcome {
        Outcome::Done | Outcome::TakenOver => String::new(),
        Outcome::Later { reason, .. } | Outcome::Died { reason, .. } => reason,
        Outcome::Unusable { error, .. } => error,
    }
}
