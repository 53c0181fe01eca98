//! Which database a namespace has: one entry of a key-value bucket that never expires.

use async_nats::header;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use throughline_actors::ports::bus::{BusError, Published};
use throughline_schemas::{EventType, WorkflowId, decode};

use super::{
    Core, NatsBus,
    error::{unavailable, unavailable_because},
    publish::{Expected, Outgoing, publish},
    reader, requests,
};

/// What the log knows of the database of its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The same as in the database.
    pub identity: String,
    /// Where the database is, without secrets: `sqlite HOST:/PATH`, `postgres HOST:PORT/NAME`.
    pub database: String,
    /// A random name of the log.
    pub log: String,
}

impl NatsBus {
    /// Which database the namespace has, and which replacement of that entry it is; `None` if there is no entry.
    pub async fn deployment(&self) -> Result<Option<(Deployment, u64)>, BusError> {
        let core = &self.core;
        let key = key(core);
        let found = requests::last_of_subject(core, &core.names.meta_stream(), &key).await?;
        let Some(message) = found else { return Ok(None) };
        let entry = serde_json::from_slice(&message.payload);
        let entry = entry.map_err(|error| unavailable_because(key.clone(), error))?;
        let header = message.headers.as_ref().and_then(|headers| headers.get(header::NATS_SEQUENCE));
        let sequence = header.and_then(|sequence| sequence.as_str().parse().ok());
        Ok(Some((entry, sequence.ok_or_else(|| unavailable(key))?)))
    }

    /// Replaces that entry if it is still this replacement (zero: if there is none). False if it is not.
    pub async fn set_deployment(&self, entry: &Deployment, revision: u64) -> Result<bool, BusError> {
        let core = &self.core;
        let (stream, subject) = (core.names.meta_stream(), key(core));
        let body = serde_json::to_vec(entry).map_err(|error| unavailable_because(subject.clone(), error))?;
        let message = Outgoing {
            stream: &stream,
            // Two processes that say the same at once are no duplicates: each has to learn which one was first.
            message_id: &format!("{subject}.{revision}.{}", uuid::Uuid::now_v7()),
            subject: subject.clone(),
            expected: if revision == 0 { Expected::Nothing } else { Expected::Last(revision) },
            body: Bytes::from(body),
        };
        Ok(publish(core, &message, |_| {}).await? == Published::New)
    }

    /// The workflow whose answer was published last, as far as the log goes back.
    pub async fn last_saved(&self) -> Result<Option<WorkflowId>, BusError> {
        let filter = self.namespace().events_of(EventType::InteractionSaved);
        let stream = self.core.names.events();
        let Some(message) = requests::last_of_subject(&self.core, stream, &filter).await? else {
            return Ok(None);
        };
        let Some(event) = reader::direct(message) else { return Ok(None) };
        let body = reader::whole_body(&self.core, &event).await?;
        Ok(decode(&body).ok().map(|event| event.meta.workflow_id))
    }
}

fn key(core: &Core) -> String {
    format!("$KV.{}.database", core.names.meta())
}
