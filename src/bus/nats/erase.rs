//! Removing messages for good: the server overwrites what stood in its files (`no_erase` is not set). What it has written
//! elsewhere, such as the log of a cluster's Raft groups, it compacts by itself.

use std::collections::{BTreeSet, HashSet};

use async_nats::header;
use futures_util::future::try_join_all;
use serde::{Deserialize, de::IgnoredAny};
use throughline_actors::ports::bus::BusError;

use super::{
    Core, NatsBus, StoredEvent, batch,
    error::{unavailable, unavailable_because},
    headers,
    objects::{Description, encoded, stream_of},
    reader, release, requests, stream_api,
};

/// Messages that are removed at the same time.
const SIDE_BY_SIDE: usize = 16;
/// Messages that are looked through at once.
const READ_AT_ONCE: u64 = 256;
/// Pieces of a body that are read at once; one has 128 KiB.
const PIECES_AT_ONCE: u64 = 16;
/// What the server says of a message that is not there, or not any more.
const NOT_THERE: [u64; 2] = [10_037, 10_043];

impl NatsBus {
    /// The next messages of the event log from a sequence on, with their bodies, at most [`READ_AT_ONCE`]; none behind the
    /// last one. A body that was erased is left as its reference.
    pub async fn events_from(&self, first: u64) -> Result<Vec<StoredEvent>, BusError> {
        read(&self.core, self.core.names.events(), first).await
    }

    /// The same of dead letters, and of the records of what was done with them.
    pub async fn letters_from(&self, first: u64) -> Result<Vec<StoredEvent>, BusError> {
        read(&self.core, self.core.names.dead(), first).await
    }

    /// Erases messages of the event log; how many there were.
    pub async fn erase_events(&self, sequences: &[u64]) -> Result<u64, BusError> {
        erase_all(&self.core, self.core.names.events(), sequences).await
    }

    /// Erases dead letters, or records of what was done with them; how many there were.
    pub async fn erase_letters(&self, sequences: &[u64]) -> Result<u64, BusError> {
        erase_all(&self.core, self.core.names.dead(), sequences).await
    }

    /// The entries of the bucket of claims that are about these messages of the event log: claims, and attempt logs of
    /// earlier deliveries.
    pub async fn claims_on(&self, events: &BTreeSet<u64>) -> Result<Vec<StoredEvent>, BusError> {
        let core = &self.core;
        let stream = core.names.claims_stream();
        let (mut found, mut next) = (Vec::new(), 1);
        loop {
            let batch = batch::messages_of(core, &stream, next, batch::ALL, READ_AT_ONCE).await?;
            let Some(last) = batch.messages.last() else { return Ok(found) };
            next = last.sequence + 1;
            let is_about =
                |entry: &StoredEvent| claimed(&entry.subject).is_some_and(|of| events.contains(&of));
            found.extend(batch.messages.into_iter().filter(is_about));
        }
    }

    /// Erases entries of the bucket of claims; how many there were.
    pub async fn erase_claims(&self, sequences: &[u64]) -> Result<u64, BusError> {
        erase_all(&self.core, &self.core.names.claims_stream(), sequences).await
    }

    /// Erases a large body, whatever names it; whether there was one.
    pub async fn erase_body(&self, name: &str) -> Result<bool, BusError> {
        erase_object(&self.core, self.core.names.bodies(), name).await
    }

    /// How long a delivery may be in hand without an answer.
    pub fn ack_wait(&self) -> std::time::Duration {
        self.core.settings.ack_wait
    }
}

/// The large bodies that a stored event or a dead letter names.
pub fn bodies_of(event: &StoredEvent) -> HashSet<String> {
    release::names_of(event).collect()
}

/// The message of the event log that an entry of the bucket of claims is about: `$KV.{bucket}.{consumer}.{sequence}`, with
/// `.note` behind it or not.
fn claimed(subject: &str) -> Option<u64> {
    subject.split('.').nth(3)?.parse().ok()
}

async fn read(core: &Core, stream: &str, first: u64) -> Result<Vec<StoredEvent>, BusError> {
    let batch = batch::messages_of(core, stream, first, batch::ALL, READ_AT_ONCE).await?;
    if batch.messages.is_empty() {
        // A replica that is behind does not know the latest ones.
        return match stream_api::any_from(core, stream, first).await? {
            Some(_) => Err(unavailable("reading stored messages: a replica does not have all of them")),
            None => Ok(Vec::new()),
        };
    }
    let mut messages = Vec::with_capacity(batch.messages.len());
    for message in batch.messages {
        let body = match reader::whole_body(core, &message).await {
            Ok(body) => body,
            Err(error) => match message.header(headers::BODY) {
                Some(name) if is_erased(core, name).await? => message.body.clone(),
                Some(_) | None => return Err(error),
            },
        };
        messages.push(StoredEvent { body, ..message });
    }
    Ok(messages)
}

/// Where an object of a bucket is: its description and the subject of its pieces.
async fn described(core: &Core, bucket: &str, name: &str) -> Result<Option<(u64, String)>, BusError> {
    let subject = format!("$O.{bucket}.M.{}", encoded(name));
    let found = requests::last_of_subject(core, &stream_of(bucket), &subject).await?;
    let Some(message) = found else { return Ok(None) };
    let what = "reading where an object is";
    let object: Description =
        serde_json::from_slice(&message.payload).map_err(|error| unavailable_because(what, error))?;
    let at = message.headers.as_ref().and_then(|headers| headers.get(header::NATS_SEQUENCE));
    let at = at.and_then(|at| at.as_str().parse().ok()).ok_or_else(|| unavailable(what))?;
    Ok(Some((at, format!("$O.{bucket}.C.{}", object.nuid))))
}

/// Whether nothing is left of a large body but its description, or not even that.
async fn is_erased(core: &Core, name: &str) -> Result<bool, BusError> {
    let bucket = core.names.bodies();
    let Some((_, pieces)) = described(core, bucket, name).await? else { return Ok(true) };
    let first = batch::messages_of(core, &stream_of(bucket), 1, &pieces, 1).await?;
    Ok(first.messages.is_empty())
}

/// Erases an object of a bucket; whether there was one. Its pieces go first, so that an erasure which was cut short is
/// found again.
pub(super) async fn erase_object(core: &Core, bucket: &str, name: &str) -> Result<bool, BusError> {
    let stream = stream_of(bucket);
    let Some((description, pieces)) = described(core, bucket, name).await? else { return Ok(false) };
    let mut next = 1;
    loop {
        let batch = batch::messages_of(core, &stream, next, &pieces, PIECES_AT_ONCE).await?;
        let sequences: Vec<_> = batch.messages.iter().map(|piece| piece.sequence).collect();
        let Some(last) = sequences.last() else { break };
        next = last + 1;
        erase_all(core, &stream, &sequences).await?;
    }
    erase_all(core, &stream, &[description]).await?;
    Ok(true)
}

/// Overwrites messages where they are stored. How many were there.
async fn erase_all(core: &Core, stream: &str, sequences: &[u64]) -> Result<u64, BusError> {
    delete_all(core, stream, sequences, true).await
}

/// Removes messages; their place is used again later. How many were there.
pub(super) async fn remove_all(core: &Core, stream: &str, sequences: &[u64]) -> Result<u64, BusError> {
    delete_all(core, stream, sequences, false).await
}

async fn delete_all(core: &Core, stream: &str, sequences: &[u64], overwrites: bool) -> Result<u64, BusError> {
    let mut deleted = 0;
    for some in sequences.chunks(SIDE_BY_SIDE) {
        let done = some.iter().map(|sequence| delete(core, stream, *sequence, overwrites));
        deleted += try_join_all(done).await?.into_iter().map(u64::from).sum::<u64>();
    }
    Ok(deleted)
}

/// Whether there was such a message.
async fn delete(core: &Core, stream: &str, sequence: u64, overwrites: bool) -> Result<bool, BusError> {
    #[derive(Deserialize)]
    struct Done {
        #[serde(rename = "success")]
        _success: IgnoredAny,
    }
    let address = format!("$JS.API.STREAM.MSG.DELETE.{stream}");
    let request = format!(r#"{{"seq":{sequence},"no_erase":{}}}"#, !overwrites);
    match stream_api::answer::<Done>(core, address, request.into()).await? {
        Ok(_) => Ok(true),
        Err(error) if NOT_THERE.contains(&error.err_code) => Ok(false),
        Err(error) => Err(unavailable_because(format!("deleting message {sequence} of {stream}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_and_notes_tell_which_message_they_are_about() {
        assert_eq!(claimed("$KV.n_CLAIMS.stage_input.17"), Some(17));
        assert_eq!(claimed("$KV.n_CLAIMS.stage_generation.17.note"), Some(17));
        assert_eq!(claimed("$KV.n_CLAIMS.something"), None);
        assert_eq!(claimed("$KV.n_CLAIMS.stage_input.x"), None);
    }
}
