//! Erasing what is theirs, everywhere it is kept.
//!
//! The order is that in which what is left over after being killed is found again: large bodies before the messages that
//! name them, the log before the database, which puts back what the log has and knows the workflows.

use std::time::Duration;

use throughline_actors::ports::clock::Clock;
use throughline_schemas::Timestamp;
use tokio::time::{Instant, sleep};

use super::{
    PersonalError, Stores, Whom,
    gather::{OnServer, Turns},
    log::{Events, bodies},
    whom::Matcher,
};
use crate::{
    archive::{Rewritten, rewrite, rewrite_bucket},
    config::ArchivePlace,
    storage::Erased,
};

/// How often it is looked whether more has come.
const ROUNDS: usize = 3;
/// How long beyond the ack wait it is waited for deliveries in hand.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where this process cannot erase anything.
pub const OUT_OF_REACH: [&str; 6] = [
    "recordings and exports that were handed out, and namespaces into which recordings were imported",
    "backups of the database, of the NATS server's store and of archives",
    "logs and traces of processes, and whatever read the events",
    "what model providers and data sources keep of the requests to them",
    "logs that a cluster of NATS servers keeps for replication, until the servers compact them",
    "write-ahead logs and dead rows of a PostgreSQL server, until it recycles them",
];

/// What was erased, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Workflows of theirs that were found in any store.
    pub workflows: u64,
    /// Messages of the event log.
    pub events: u64,
    /// Large bodies.
    pub bodies: u64,
    /// Dead letters.
    pub letters: u64,
    /// Claims on messages and attempt logs.
    pub claims: u64,
    /// Archives.
    pub archives: Rewritten,
    /// Rows of the database.
    pub rows: Erased,
}

impl Forgotten {
    fn add(&mut self, more: &Self) {
        self.workflows = self.workflows.max(more.workflows);
        self.events += more.events;
        self.bodies += more.bodies;
        self.letters += more.letters;
        self.claims += more.claims;
        self.archives.archives += more.archives.archives;
        self.archives.messages += more.archives.messages;
        self.rows.turns += more.rows.turns;
        self.rows.interactions += more.rows.interactions;
        self.rows.preferences += more.rows.preferences;
    }

    fn is_nothing(&self) -> bool {
        *self == Self { workflows: self.workflows, ..Self::default() }
    }
}

/// Erases everything that is kept about them, or says with `dry_run` what that would be. Whose turns are open is not
/// forgotten; nothing is erased then. May be killed and run again.
pub async fn forget(
    stores: Stores<'_>,
    whom: &Whom,
    dry_run: bool,
    clock: &dyn Clock,
) -> Result<Forgotten, PersonalError> {
    let mut all = Forgotten::default();
    for round in 0..ROUNDS {
        let found = once(stores, whom, dry_run, clock.now()).await;
        let found = match found {
            // Something of theirs came while the rest was erased.
            Err(PersonalError::Open { .. } | PersonalError::Unsettled { .. }) if round > 0 => {
                return Err(PersonalError::WentOn { whom: whom.clone() });
            }
            found => found?,
        };
        all.add(&found);
        if dry_run || found.is_nothing() {
            if !dry_run {
                stores.store.overwrite_free_space().await?;
            }
            return Ok(all);
        }
    }
    Err(PersonalError::WentOn { whom: whom.clone() })
}

async fn once(
    stores: Stores<'_>,
    whom: &Whom,
    dry_run: bool,
    now: Timestamp,
) -> Result<Forgotten, PersonalError> {
    let Stores { bus, store, archives } = stores;
    let turns = Turns::list(store, whom).await?;
    if turns.open > 0 {
        return Err(PersonalError::Open { turns: turns.open, whom: whom.clone() });
    }
    let mut matcher = Matcher::new(whom.clone(), turns.workflows);
    let mut found = OnServer::read(bus, &mut matcher, |_, _| Ok(())).await?;
    if !dry_run {
        settle(stores, whom, &mut matcher, &mut found.events).await?;
    }
    let events = found.events.sequences();
    let bodies = bodies(&found.events, &found.letters);
    let claims: Vec<_> = found.claims.iter().map(|claim| claim.sequence).collect();
    let mut forgotten = Forgotten {
        letters: found.letters.sequences.len() as u64,
        claims: claims.len() as u64,
        events: events.len() as u64,
        bodies: bodies.len() as u64,
        ..Forgotten::default()
    };
    if !dry_run {
        // What is still read from a replica that is behind is counted once.
        forgotten.bodies = 0;
        for body in &bodies {
            forgotten.bodies += u64::from(bus.erase_body(body).await?);
        }
        forgotten.claims = bus.erase_claims(&claims).await?;
        bus.erase_letters(&found.letters.records).await?;
        forgotten.letters = bus.erase_letters(&found.letters.sequences).await?;
        forgotten.events = bus.erase_events(&events).await?;
    }
    match archives {
        ArchivePlace::Off => {}
        ArchivePlace::File(folder) => {
            let (folder, namespace) = (folder.clone(), bus.namespace().to_string());
            let work = move || (rewrite(&folder, &namespace, &mut matcher, dry_run, now), matcher);
            let (rewritten, learnt) = tokio::task::spawn_blocking(work).await?;
            matcher = learnt;
            forgotten.archives = rewritten?;
        }
        ArchivePlace::Bucket(bucket) => {
            (forgotten.archives, matcher) = rewrite_bucket(bus, bucket, matcher, dry_run).await?;
        }
    }
    forgotten.workflows = matcher.workflows();
    forgotten.rows = if dry_run { store.count_of(whom).await? } else { store.erase(whom).await? };
    Ok(forgotten)
}

/// Waits until no stage can have a message of theirs in hand.
async fn settle(
    stores: Stores<'_>,
    whom: &Whom,
    matcher: &mut Matcher,
    events: &mut Events,
) -> Result<(), PersonalError> {
    let deadline = Instant::now() + stores.bus.ack_wait() + PATIENCE;
    loop {
        let unsettled = events.unsettled(stores.bus).await?;
        if unsettled.open + unsettled.just_ended == 0 {
            return Ok(());
        }
        if unsettled.open > 0 || Instant::now() >= deadline {
            let workflows = unsettled.open + unsettled.just_ended;
            return Err(PersonalError::Unsettled { workflows, whom: whom.clone() });
        }
        sleep(LOOK_AGAIN).await;
        events.read_on(stores.bus, matcher, |_| Ok(())).await?;
    }
}
