//! Comparing log and database before anything is done with both, and telling each about the other the first time.

use std::time::Duration;

use throughline_actors::{
    dependency::cause::error_chain,
    metrics,
    ports::{Classify, Health, bus::BusError, store::StoreError},
};
use tokio::time::Instant;
use uuid::Uuid;

use super::decide::{Refusal, Verdict, decide};
use crate::{
    bus::nats::{Deployment, NatsBus},
    storage::{Beat, Database, Identity, Stranger},
    system::host_name,
};

/// A process that loses a race looks again; the entry is written once in the life of a namespace, and when it moves.
const ATTEMPTS: usize = 8;
/// Workers of a log that has just been recreated learn its name within this.
const PATIENCE: Duration = Duration::from_secs(12);
/// A bus or a database that goes away while a worker starts is waited for so long.
const OUTAGE: Duration = Duration::from_secs(15);
/// Between looks at who else uses the database, and at what is away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why log and database cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum CheckInError {
    /// They do not belong together.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another log uses the namespace's tables.
    #[error(
        "the database {database} is in use for the namespace {namespace} with another log: the worker {worker} gave a sign of \
         life {seen_s} s ago. One database serves one log: give this one another nats.namespace or database.url; if that \
         worker is gone, try again in a minute"
    )]
    OtherLog {
        /// The namespace.
        namespace: String,
        /// Where the database is.
        database: String,
        /// Who uses it.
        worker: String,
        /// Since when that one gave no sign of life.
        seen_s: u64,
    },
    /// Others wrote at the same time, again and again.
    #[error(
        "which database the namespace {0} has could not be settled, because others were changing it; try again"
    )]
    Unsettled(String),
    /// The log cannot be asked.
    #[error("which database the namespace has cannot be read")]
    Bus(#[from] BusError),
    /// The database cannot be asked.
    #[error("which namespace the database belongs to cannot be read")]
    Store(#[from] StoreError),
}

impl CheckInError {
    /// Whether it may be over in a moment.
    fn is_outage(&self) -> bool {
        match self {
            Self::Refused(_) | Self::OtherLog { .. } | Self::Unsettled(_) => false,
            Self::Bus(error) => error.health() == Health::Failed,
            Self::Store(error) => error.health() == Health::Failed,
        }
    }

    /// Whether a service could not be reached, rather than the configuration being wrong.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Refused(_) | Self::OtherLog { .. } => false,
            Self::Unsettled(_) | Self::Bus(_) | Self::Store(_) => true,
        }
    }
}

/// A process that may use log and database together.
#[derive(Debug, Clone)]
pub struct CheckedIn {
    /// The namespace.
    pub namespace: String,
    /// Where the database is.
    pub place: String,
    /// Its signs of life.
    pub beat: Beat,
}

/// Makes sure that log and database belong together and that no other log uses the database, and notes this process. Either
/// of them may be away for up to 15 s meanwhile.
///
/// `calls` is how many calls of models this process can make at once.
pub async fn check_in(
    bus: &NatsBus,
    store: &Database,
    place: &str,
    calls: u32,
) -> Result<CheckedIn, CheckInError> {
    let give_up_at = Instant::now() + OUTAGE;
    let mut is_told = false;
    loop {
        match check_in_now(bus, store, place, calls).await {
            Err(error) if error.is_outage() && Instant::now() < give_up_at => {
                if !is_told {
                    tracing::warn!(within = ?OUTAGE, error = error_chain(&error), "log and database cannot be compared now; trying again for a moment");
                    is_told = true;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            checked_in => return checked_in,
        }
    }
}

async fn check_in_now(
    bus: &NatsBus,
    store: &Database,
    place: &str,
    calls: u32,
) -> Result<CheckedIn, CheckInError> {
    let entry = compare(bus, store, place, true).await?;
    let worker = format!("{}:{}:{}", host_name(), std::process::id(), Uuid::now_v7().simple());
    let (namespace, place) = (bus.namespace().to_string(), place.to_owned());
    let checked_in = CheckedIn { namespace, place, beat: Beat { worker, log: entry.log, calls } };
    let give_up_at = Instant::now() + PATIENCE;
    let mut is_told = false;
    while let Some(stranger) = checked_in.stranger(store).await? {
        let refusal = checked_in.other_log(&stranger);
        if Instant::now() >= give_up_at {
            store.leave(&checked_in.namespace, &checked_in.beat.worker).await?;
            return Err(refusal);
        }
        if !is_told {
            tracing::warn!(within = ?PATIENCE, "{refusal}; looking again for a moment");
            is_told = true;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    // A copy of the database notes itself and then looks for signs of life; here it is the other way round, so one of
    // the two sees the other.
    if let Err(refusal) = compare(bus, store, &checked_in.place, false).await {
        store.leave(&checked_in.namespace, &checked_in.beat.worker).await?;
        return Err(refusal);
    }
    Ok(checked_in)
}

impl CheckedIn {
    /// Gives a sign of life; a worker of another log that gave one lately, if there is one.
    pub(super) async fn stranger(&self, store: &Database) -> Result<Option<Stranger>, StoreError> {
        let strangers = store.beat(&self.namespace, &self.beat).await?;
        Ok(strangers.into_iter().find(|stranger| !stranger.is_gone()))
    }

    pub(super) fn other_log(&self, stranger: &Stranger) -> CheckInError {
        CheckInError::OtherLog {
            namespace: self.namespace.clone(),
            database: self.place.clone(),
            worker: stranger.worker.clone(),
            seen_s: stranger.seen_ago.as_secs(),
        }
    }
}

/// What the log says of its database, after each has been told of the other where that was missing. Only a process that starts
/// says that the database is somewhere else: hosts that share a disk have different names for one file.
pub async fn compare(
    bus: &NatsBus,
    store: &Database,
    place: &str,
    may_move: bool,
) -> Result<Deployment, CheckInError> {
    let namespace = bus.namespace().as_str();
    for _ in 0..ATTEMPTS {
        let (entry, revision) = bus.deployment().await?.unzip();
        let revision = revision.unwrap_or(0);
        let identity = store.identity(namespace).await?;
        let to_write = match decide(namespace, entry.as_ref(), identity.as_ref(), place) {
            Verdict::Fine => match entry {
                Some(entry) => return Ok(entry),
                None => continue,
            },
            Verdict::Moved { .. } if !may_move => match entry {
                Some(entry) => return Ok(entry),
                None => continue,
            },
            Verdict::Moved { from } => {
                tracing::info!(namespace, from, to = place, "the namespace's database has moved");
                let Some(entry) = entry else { continue };
                Deployment { database: place.to_owned(), ..entry }
            }
            Verdict::Claim => {
                let identity = store.claim_identity(namespace, &Uuid::now_v7().to_string()).await?;
                tracing::info!(
                    namespace,
                    database = place,
                    "the namespace and this database belong together from now on"
                );
                new_entry(identity, place)
            }
            Verdict::NewLog { identity } => {
                metrics::stores_differ("new_log");
                tracing::warn!(
                    namespace,
                    database = place,
                    "the database is older than the log, which is new or was wiped: events of turns that had ended are gone, \
                     turns that were open begin again"
                );
                new_entry(identity, place)
            }
            Verdict::LostDatabase { identity } => {
                metrics::stores_differ("lost_database");
                tracing::warn!(
                    namespace,
                    database = place,
                    "the namespace's database was lost or replaced, and this one is empty: answers that the log has are put \
                     back into it in the background, older ones are gone; stop the workers and restore a backup if there is \
                     one"
                );
                store.claim_identity(namespace, &identity).await?;
                continue;
            }
            Verdict::Refuse(refusal) => return Err(refusal.into()),
        };
        if bus.set_deployment(&to_write, revision).await? {
            return Ok(to_write);
        }
    }
    Err(CheckInError::Unsettled(namespace.to_owned()))
}

/// Makes the database at `place` the namespace's, whichever was before; says which one that was, if it is another.
pub async fn adopt(bus: &NatsBus, store: &Database, place: &str) -> Result<Option<String>, CheckInError> {
    let namespace = bus.namespace().as_str();
    for _ in 0..ATTEMPTS {
        let (entry, revision) = bus.deployment().await?.unzip();
        let new = Uuid::now_v7().to_string();
        let identity = match store.identity(namespace).await? {
            // Its copy has its identity.
            Some(Identity { copied: Some(_), .. }) => {
                store.renew_identity(namespace, &new).await?;
                new
            }
            Some(Identity { id, copied: None }) => id,
            None => store.claim_identity(namespace, &new).await?,
        };
        let before = entry.as_ref().filter(|entry| entry.identity != identity);
        let before = before.map(|entry| entry.database.clone());
        let entry = match entry {
            Some(entry) => Deployment { identity, database: place.to_owned(), ..entry },
            None => new_entry(identity, place),
        };
        if bus.set_deployment(&entry, revision.unwrap_or(0)).await? {
            return Ok(before);
        }
    }
    Err(CheckInError::Unsettled(namespace.to_owned()))
}

fn new_entry(identity: String, place: &str) -> Deployment {
    Deployment { identity, database: place.to_owned(), log: Uuid::now_v7().simple().to_string() }
}
