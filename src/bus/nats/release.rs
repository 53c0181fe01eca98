//! Removing large bodies that nothing names any more.
//!
//! A body is stored before the event that names it, and again whenever it is older than a moment (`large_bodies.rs`). So
//! what was stored well before the log begins is named by nothing in the log, and what was stored just before can only be
//! named by the log's beginning, which is read. Besides that only dead letters may name a body.

use std::{collections::HashSet, time::Duration};

use futures_util::future::try_join_all;
use throughline_actors::ports::{bus::BusError, log::Released};
use throughline_schemas::Timestamp;

use super::{
    Core, StoredEvent, batch,
    error::unavailable,
    headers,
    large_bodies::{self, STORED_BEFORE},
    objects::{Object, Objects},
    retention::{StreamInfo, instant},
    stream_api,
};

/// Bodies that are removed by one call.
const MOST_AT_ONCE: usize = 2_000;
/// Bodies that are removed at the same time.
const SIDE_BY_SIDE: usize = 8;
/// Messages that are read at once.
const READ_AT_ONCE: u64 = 256;
/// Batches of messages at the beginning of the log that are read.
const MOST_BATCHES: usize = 80;
/// What the name of a body and its description take besides its bytes.
const DESCRIPTION_BYTES: u64 = 512;

/// See [`throughline_actors::ports::log::Log::release_bodies`].
pub(super) async fn release(core: &Core, bytes: u64) -> Result<Released, BusError> {
    let log = Beginning::read(core).await?;
    let kept = named_by_dead_letters(core).await?;
    let found = walk(core, &log, &kept, bytes).await?;
    for some in found.free.chunks(SIDE_BY_SIDE) {
        try_join_all(some.iter().map(|body| Objects::remove(core, core.names.bodies(), body))).await?;
    }
    let needs_log_from = match found.needs_log_after {
        Some(at) => Some(first_stored_after(core, at).await?),
        None => None,
    };
    Ok(Released {
        bodies: found.free.len() as u64,
        bytes: found.free.iter().map(|body| body.bytes).sum(),
        needs_log_from,
    })
}

struct Found {
    free: Vec<Object>,
    /// The log may begin with what was stored later than this, if as much as was asked for is to go.
    needs_log_after: Option<Timestamp>,
}

/// Goes through the bodies, the oldest first, until there is enough.
async fn walk(core: &Core, log: &Beginning, kept: &HashSet<String>, bytes: u64) -> Result<Found, BusError> {
    let mut objects = Objects::of(core, core.names.bodies());
    let (mut free, mut seen) = (Vec::new(), 0);
    while let Some(page) = objects.page().await? {
        for body in page {
            if kept.contains(&body.name) || !large_bodies::is_name(&body.name) {
                continue;
            }
            seen += body.bytes + DESCRIPTION_BYTES;
            let (stored_at, is_free) = (body.stored_at, !log.may_name(&body.name, body.stored_at));
            if is_free {
                free.push(body);
            }
            if seen >= bytes || free.len() >= MOST_AT_ONCE {
                let needs_log_after = (!is_free).then_some(stored_at);
                return Ok(Found { free, needs_log_after });
            }
        }
    }
    Ok(Found { free, needs_log_after: None })
}

/// Where the log begins.
struct Beginning {
    /// By the server's clock.
    now: Timestamp,
    /// When its first message was stored; now, if there is none.
    stored_at: Timestamp,
    /// The bodies that are named by what was stored within [`STORED_BEFORE`] from then on; `None`: that is too much to
    /// read.
    names: Option<HashSet<String>>,
}

impl Beginning {
    async fn read(core: &Core) -> Result<Self, BusError> {
        // Before the message: what is stored meanwhile is later.
        let now = StreamInfo::ask(core, core.names.events()).await?.now()?;
        let Some(first) = stream_api::message_from(core, 1, batch::ALL).await? else {
            return Ok(Self { now, stored_at: now, names: Some(HashSet::new()) });
        };
        let stored_at = instant(&first.time)?;
        let until = after(stored_at, STORED_BEFORE);
        let (mut names, mut next) = (HashSet::new(), first.seq);
        for _ in 0..MOST_BATCHES {
            let batch = batch::messages_from(core, next, batch::ALL, READ_AT_ONCE).await?;
            let young = batch.messages.iter().take_while(|message| message.stored_at <= until);
            names.extend(young.flat_map(names_of));
            match batch.messages.last() {
                Some(last) if last.stored_at <= until => next = last.sequence + 1,
                // What a replica does not have yet is younger than a body that has been stored for so long.
                Some(_) | None => return Ok(Self { now, stored_at, names: Some(names) }),
            }
        }
        Ok(Self { now, stored_at, names: None })
    }

    /// Whether a message of the log, or one that is about to be published, may name a body that was stored at this time.
    fn may_name(&self, body: &str, stored_at: Timestamp) -> bool {
        let latest = after(stored_at, STORED_BEFORE);
        let is_named = || self.names.as_ref().is_none_or(|names| names.contains(body));
        latest >= self.now || stored_at >= self.stored_at || latest >= self.stored_at && is_named()
    }
}

/// The bodies of dead letters, and of the events that were dead-lettered.
async fn named_by_dead_letters(core: &Core) -> Result<HashSet<String>, BusError> {
    let dead = core.names.dead();
    let last = StreamInfo::ask(core, dead).await?.state.last_seq;
    let (mut named, mut next) = (HashSet::new(), 1);
    loop {
        let batch = batch::messages_of(core, dead, next, batch::ALL, READ_AT_ONCE).await?;
        let Some(read) = batch.messages.last().map(|message| message.sequence) else { break };
        next = read + 1;
        named.extend(batch.messages.iter().flat_map(names_of));
    }
    // A replica that is behind does not know the latest letters. Their bodies are young, but that is its clock's word.
    if next <= last && stream_api::any_from(core, dead, next).await?.is_some() {
        return Err(unavailable("reading dead letters: a replica does not have all of them"));
    }
    Ok(named)
}

pub(super) fn names_of(letter: &StoredEvent) -> impl Iterator<Item = String> + '_ {
    let kept = headers::kept_name(headers::BODY);
    let is_name =
        move |name: &str| name.eq_ignore_ascii_case(headers::BODY) || name.eq_ignore_ascii_case(&kept);
    letter
        .headers
        .iter()
        .filter(move |(name, value)| is_name(name) && large_bodies::is_name(value))
        .map(|(_, value)| value.clone())
}

/// Sequence of the first message of the log that was stored later than this.
async fn first_stored_after(core: &Core, at: Timestamp) -> Result<u64, BusError> {
    let now = StreamInfo::ask(core, core.names.events()).await?.now()?;
    super::retention::first_within(core, Duration::from_millis(now.ms_since(at))).await
}

fn after(at: Timestamp, time: Duration) -> Timestamp {
    let ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_ms(at.unix_ms().saturating_add(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_named_stays() {
        let at = |s: i64| Timestamp::from_unix_ms(s * 1_000);
        let log = |names: Option<&[&str]>| Beginning {
            now: at(1_000),
            stored_at: at(900),
            names: names.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        };
        let read = log(Some(&["named"]));
        assert!(!read.may_name("old", at(859)), "long before the log begins");
        assert!(!read.may_name("other", at(890)), "the beginning of the log does not name it");
        assert!(read.may_name("named", at(890)));
        assert!(read.may_name("other", at(900)), "what follows has not been read");
        assert!(log(None).may_name("other", at(890)), "too much to read");
        assert!(!log(None).may_name("old", at(859)));
        let empty = Beginning { now: at(1_000), stored_at: at(1_000), names: Some(HashSet::new()) };
        assert!(empty.may_name("new", at(970)), "its event may be on the way");
        assert!(!empty.may_name("old", at(950)));
    }

    #[test]
    fn a_letter_names_its_body_and_that_of_what_was_dead_lettered() {
        let (own, kept, other) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let letter = StoredEvent {
            sequence: 1,
            subject: String::new(),
            stored_at: Timestamp::from_unix_ms(0),
            headers: vec![
                header(headers::BODY, &own),
                header(&headers::kept_name(headers::BODY), &kept),
                header("X-Body", &other),
                header(headers::BODY, "no name"),
            ],
            body: bytes::Bytes::new(),
        };
        assert_eq!(names_of(&letter).collect::<Vec<_>>(), [own, kept]);
    }
}
