//! What the sweeper asks of the log. Always the leader of the stream: a replica may not have the latest event yet.

use std::collections::BTreeMap;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use throughline_actors::ports::bus::{BusError, Latest, Position, Published};
use throughline_schemas::{EventType, SessionId, StageName, Subject, Timestamp, WorkflowId};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Core,
    error::unavailable,
    foreign, headers,
    publish::{Expected, MESSAGE_ID, Outgoing, publish},
    stream_api::{self, ConsumerState},
};

/// Messages of strangers that are taken out of the log in one look at a subject.
const MOST_FOREIGN: usize = 16;

/// The end of the log, and how far the stages are.
pub(super) async fn position(core: &Core) -> Result<Position, BusError> {
    let (last, now) = end(core).await?;
    let stages = StageName::ALL.into_iter().filter(|stage| *stage != StageName::Input);
    let settled = try_join_all(stages.map(async |stage| {
        let consumer = ConsumerState::ask(core, stage).await?;
        Ok::<_, BusError>((stage, consumer.ack_floor.stream_seq))
    }))
    .await?;
    Ok(Position { last, settled: BTreeMap::from_iter(settled), now })
}

/// The sequence of the last event, and what time the server has.
pub(super) async fn end(core: &Core) -> Result<(u64, Option<Timestamp>), BusError> {
    #[derive(Deserialize)]
    struct Info {
        state: State,
        /// What time the server has.
        #[serde(default)]
        ts: String,
    }
    #[derive(Deserialize)]
    struct State {
        last_seq: u64,
    }
    let info: Info =
        stream_api::ask(core, format!("$JS.API.STREAM.INFO.{}", core.names.events()), Bytes::new()).await?;
    Ok((info.state.last_seq, instant(&info.ts)))
}

fn instant(text: &str) -> Option<Timestamp> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(Timestamp::from)
}

/// When the event of an address was stored.
pub(super) async fn stored_at(core: &Core, subject: &Subject) -> Result<Option<Timestamp>, BusError> {
    let subject = subject.live(&core.settings.namespace);
    let found = stream_api::message(core, format!(r#"{{"last_by_subj":"{subject}"}}"#)).await?;
    Ok(found.and_then(|message| instant(&message.time)))
}

/// The latest event of a workflow, other than what its publisher said, which may be said again at any time.
pub(super) async fn latest(
    core: &Core,
    session: &SessionId,
    workflow: &WorkflowId,
) -> Result<Option<Latest>, BusError> {
    let ns = &core.settings.namespace;
    let found = last_of(core, &ns.events_with(None, Some(session), Some(workflow))).await?;
    if found.as_ref().is_none_or(|latest| latest.key.event_type != EventType::UserInputReceived) {
        return Ok(found);
    }
    let results = EventType::ALL.into_iter().filter(|event_type| *event_type != EventType::UserInputReceived);
    let results = results.map(|event_type| Subject::new(event_type, session, workflow).live(ns));
    let found = try_join_all(results.map(async |subject| last_of(core, &subject).await)).await?;
    Ok(found.into_iter().flatten().max_by_key(|latest| latest.sequence))
}

async fn last_of(core: &Core, subject: &str) -> Result<Option<Latest>, BusError> {
    for _ in 0..MOST_FOREIGN {
        let found = stream_api::message(core, format!(r#"{{"last_by_subj":"{subject}"}}"#)).await?;
        let Some(message) = found else { return Ok(None) };
        let Some(address) = Subject::parse(&core.settings.namespace, &message.subject) else {
            return Ok(None);
        };
        if stream_api::decode_base64(&message.data).is_some_and(|body| address.is_of(&body)) {
            let stored_at = instant(&message.time);
            let latest = |stored_at| Latest { key: address.key().clone(), sequence: message.seq, stored_at };
            return Ok(stored_at.map(latest));
        }
        foreign::take_out(core, &message.subject, message.seq).await?;
    }
    Err(unavailable("looking for the latest event: somebody keeps writing on its subject"))
}

/// Stores an event again, at the end of the log, unless its subject has another one by now; then takes the first
/// copy out of the log, which has one of each event.
pub(super) async fn publish_again(
    core: &Core,
    subject: &Subject,
    sequence: u64,
) -> Result<Published, BusError> {
    let Some(stored) = stream_api::message(core, format!(r#"{{"seq":{sequence}}}"#)).await? else {
        return Ok(Published::Already);
    };
    let odd = || unavailable("reading an event that is to be published again");
    let kept = stream_api::headers_of(&stored).ok_or_else(odd)?;
    let body = stream_api::decode_base64(&stored.data).ok_or_else(odd)?;
    let id = kept.iter().find(|(name, _)| name == MESSAGE_ID).map_or("", |(_, id)| id.as_str());
    let message_id = format!("{id}.again.{sequence}");
    let message = Outgoing {
        stream: core.names.events(),
        subject: subject.live(&core.settings.namespace),
        message_id: &message_id,
        expected: Expected::Last(sequence),
        body: body.into(),
    };
    let published = publish(core, &message, |map: &mut HeaderMap| {
        for (name, value) in kept.iter().filter(|(name, _)| !name.starts_with("Nats-")) {
            headers::append(map, name, value);
        }
    })
    .await?;
    // A process that comes too late has nothing to delete; a copy that stays is read as the same event.
    if published == Published::New
        && let Err(error) = stream_api::delete(core, sequence).await
    {
        tracing::debug!(%error, sequence, "the first copy of an event stays in the log");
    }
    Ok(published)
}
