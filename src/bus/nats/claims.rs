//! Claims on redelivered messages, and attempt logs of their deliveries: entries of a key-value bucket.

use async_nats::header;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use throughline_actors::ports::bus::{AttemptLog, BusError, Claim, Claimed, Published};
use throughline_schemas::StageName;

use super::{
    Core, Names,
    error::{unavailable, unavailable_because},
    publish::{Expected, Outgoing, publish},
    requests,
};

pub(super) async fn read(core: &Core, stage: StageName, sequence: u64) -> Result<Option<Claimed>, BusError> {
    let found = last(core, key(core, stage, sequence)).await?;
    Ok(found.map(|(claim, revision)| Claimed { claim, revision }))
}

pub(super) async fn read_attempt_log(
    core: &Core,
    stage: StageName,
    sequence: u64,
) -> Result<Option<AttemptLog>, BusError> {
    Ok(last(core, attempt_log_key(core, stage, sequence)).await?.map(|(attempt_log, _)| attempt_log))
}

/// The last entry of a key, and its sequence.
async fn last<T: DeserializeOwned>(core: &Core, key: String) -> Result<Option<(T, u64)>, BusError> {
    let bucket = core.names.claims_stream();
    let Some(message) = requests::last_of_subject(core, &bucket, &key).await? else { return Ok(None) };
    let entry = serde_json::from_slice(&message.payload);
    let entry = entry.map_err(|error| unavailable_because(key.clone(), error))?;
    let header = message.headers.as_ref().and_then(|headers| headers.get(header::NATS_SEQUENCE));
    let sequence = header.and_then(|sequence| sequence.as_str().parse().ok());
    Ok(Some((entry, sequence.ok_or_else(|| unavailable(key))?)))
}

pub(super) async fn keep_attempt_log(
    core: &Core,
    stage: StageName,
    sequence: u64,
    attempt_log: &AttemptLog,
) -> Result<(), BusError> {
    let (stream, subject) = (core.names.claims_stream(), attempt_log_key(core, stage, sequence));
    let body =
        serde_json::to_vec(attempt_log).map_err(|error| unavailable_because(subject.clone(), error))?;
    let message = Outgoing {
        stream: &stream,
        // A delivery writes one log.
        message_id: &format!("{subject}.{}", attempt_log.delivery),
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
    revision: u64,
) -> Result<Published, BusError> {
    let (stream, subject) = (core.names.claims_stream(), key(core, stage, sequence));
    let body = serde_json::to_vec(claim).map_err(|error| unavailable_because(subject.clone(), error))?;
    let message = Outgoing {
        stream: &stream,
        // A handling claims a message once and gives it up once, so only a repeated publish is a duplicate.
        message_id: &format!("{subject}.{}.{}", claim.handling, claim.open),
        subject,
        expected: if revision == 0 { Expected::Nothing } else { Expected::Last(revision) },
        body: Bytes::from(body),
    };
    publish(core, &message, |_| {}).await
}

fn key(core: &Core, stage: StageName, sequence: u64) -> String {
    format!("$KV.{}.{}.{sequence}", core.names.claims(), Names::consumer(stage))
}

fn attempt_log_key(core: &Core, stage: StageName, sequence: u64) -> String {
    format!("{}.note", key(core, stage, sequence))
}
