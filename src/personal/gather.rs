//! The stores, and what of all of them is theirs.

use std::io;

use throughline_actors::ports::store::{Store as _, StoreError, TurnsQuery};
use throughline_schemas::WorkflowId;

use super::{
    PersonalError, Whom,
    log::{Events, Letters},
    whom::Matcher,
};
use crate::{
    bus::nats::{NatsBus, StoredEvent},
    config::ArchivePlace,
    storage::Database,
};

/// Turns of the database that are listed at once.
const TURNS_AT_ONCE: usize = 1_000;

/// Where things are kept of a namespace.
#[derive(Clone, Copy)]
pub struct Stores<'a> {
    /// The event log, dead letters, bodies and notes.
    pub bus: &'a NatsBus,
    /// The database that belongs to the log.
    pub store: &'a Database,
    /// Where archives are.
    pub archives: &'a ArchivePlace,
}

/// Their turns in the database.
#[derive(Debug, Default)]
pub(super) struct Turns {
    pub(super) workflows: Vec<WorkflowId>,
    /// How many of them wait or run.
    pub(super) open: u64,
}

impl Turns {
    pub(super) async fn list(store: &Database, whom: &Whom) -> Result<Self, StoreError> {
        let (mut turns, mut after) = (Self::default(), None);
        loop {
            let (user, session) = match whom {
                Whom::User(user) => (Some(user.clone()), None),
                Whom::Session(session) => (None, Some(session.clone())),
            };
            let query = TurnsQuery { user, session, after, limit: TURNS_AT_ONCE, ..TurnsQuery::default() };
            let page = store.latest_turns(query).await?;
            let Some(last) = page.last() else { return Ok(turns) };
            after = Some((last.created_at, last.workflow_id.clone()));
            turns.open += page.iter().filter(|turn| !turn.state.is_end()).count() as u64;
            turns.workflows.extend(page.into_iter().map(|turn| turn.workflow_id));
        }
    }
}

/// What is theirs on the NATS server.
pub(super) struct OnServer {
    pub(super) events: Events,
    pub(super) letters: Letters,
    pub(super) claims: Vec<StoredEvent>,
}

/// A store of the server, and what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Event,
    Letter,
    Claim,
}

impl OnServer {
    /// Reads everything once; `each` is given what is theirs.
    pub(super) async fn read(
        bus: &NatsBus,
        matcher: &mut Matcher,
        mut each: impl FnMut(Place, &StoredEvent) -> io::Result<()>,
    ) -> Result<Self, PersonalError> {
        let mut events = Events::default();
        events.read_on(bus, matcher, |event| each(Place::Event, event)).await?;
        let letters = Letters::read(bus, matcher, |letter| each(Place::Letter, letter)).await?;
        let of = events.sequences().into_iter().chain(letters.of_events.iter().copied()).collect();
        let claims = bus.claims_on(&of).await?;
        claims.iter().try_for_each(|claim| each(Place::Claim, claim))?;
        Ok(Self { events, letters, claims })
    }
}
