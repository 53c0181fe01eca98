//! Claims on messages that came more than once, and notes on what became of them: entries of a key-value bucket.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use throughline_actors::ports::bus::{BusError, Claim, Note};
use throughline_schemas::StageName;

use super::{
    Core, Names,
    error::unavailable_because,
    publish::{Expected, Outgoing, publish},
    requests,
};

pub(super) async fn read(core: &Core, stage: StageName, sequence: u64) -> Result<Option<Claim>, BusError> {
    last(core, key(core, stage, sequence)).await
}

pub(super) async fn read_note(
    core: &Core,
    stage: StageName,
    sequence: u64,
) -> Result<Option<Note>, BusError> {
    last(core, note_key(core, stage, sequence)).await
}

async fn last<T: DeserializeOwned>(core: &Core, key: String) -> Result<Option<T>, BusError> {
    let bucket = core.names.claims_stream();
    let Some(message) = requests::last_of_subject(core, &bucket, &key).await? else { return Ok(None) };
    serde_json::from_slice(&message.payload).map(Some).map_err(|error| unavailable_because(key, error))
}

pub(super) async fn keep_note(
    core: &Core,
    stage: StageName,
    sequence: u64,
    note: &Note,
) -> Result<(), BusError> {
    let (stream, subject) = (core.names.claims_stream(), note_key(core, stage, sequence));
    let body = serde_json::to_vec(note).map_err(|error| unavailable_because(subject.clone(), error))?;
    let message = Outgoing {
        stream: &stream,
        // A delivery leaves one note.
        message_id: &format!("{subject}.{}", note.delivery),
        subject,
        expected: Expected::Anything,
        body: Bytes::from(body),
    };
    publish(core, &message, |_| {}).await.map(|_| ())
}

pub(super) async fn write(
    core: &Core,
    stage: StageName,
    sequence: u64,
    claim: &Claim,
) -> Result<(), BusError> {
    let (stream, subject) = (core.names.claims_stream(), key(core, stage, sequence));
    let body = serde_json::to_vec(claim).map_err(|error| unavailable_because(subject.clone(), error))?;
    let message = Outgoing {
        stream: &stream,
        // A claim never takes the same value twice, so only a repeated publish is a duplicate.
        message_id: &format!("{subject}.{}.{}.{}", claim.delivery, claim.open, claim.panics),
        subject,
        expected: Expected::Anything,
        body: Bytes::from(body),
    };
    publish(core, &message, |_| {}).await.map(|_| ())
}

fn key(core: &Core, stage: StageName, sequence: u64) -> String {
    format!("$KV.{}.{}.{sequence}", core.names.claims(), Names::consumer(stage))
}

fn note_key(core: &Core, stage: StageName, sequence: u64) -> String {
    format!("{}.note", key(core, stage, sequence))
}
