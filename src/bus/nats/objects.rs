//! What is in an object store bucket, the oldest first, with the server's word for when it was stored. The form is that of
//! all clients (ADR-20): pieces on `$O.BUCKET.C.NUID`, a description behind them on `$O.BUCKET.M.NAME`.

use serde::{Deserialize, de::IgnoredAny};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::Timestamp;

use super::{Core, batch, stream_api};

/// Descriptions that are read at once.
const READ_AT_ONCE: u64 = 256;

/// The stream behind a bucket.
pub(super) fn stream_of(bucket: &str) -> String {
    format!("OBJ_{bucket}")
}

/// What the description of an object says.
#[derive(Deserialize)]
pub(super) struct Description {
    name: String,
    /// Under which its pieces are.
    pub(super) nuid: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    deleted: bool,
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) name: String,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// Under which its pieces are.
    nuid: String,
    pub(super) stored_at: Timestamp,
}

/// Reads a bucket page by page.
pub(super) struct Objects<'a> {
    core: &'a Core,
    bucket: &'a str,
    next: u64,
}

impl<'a> Objects<'a> {
    pub(super) fn of(core: &'a Core, bucket: &'a str) -> Self {
        Self { core, bucket, next: 1 }
    }

    /// The next page; `None` behind the last.
    pub(super) async fn page(&mut self) -> Result<Option<Vec<Object>>, BusError> {
        let (stream, descriptions) = (stream_of(self.bucket), format!("$O.{}.M.>", self.bucket));
        let batch = batch::messages_of(self.core, &stream, self.next, &descriptions, READ_AT_ONCE).await?;
        let Some(last) = batch.messages.last() else { return Ok(None) };
        self.next = last.sequence + 1;
        let objects = batch.messages.iter().filter_map(|message| {
            // What is no description is no object of ours.
            let found: Description = serde_json::from_slice(&message.body).ok()?;
            let Description { name, nuid, size, deleted } = found;
            (!deleted).then_some(Object { name, bytes: size, nuid, stored_at: message.stored_at })
        });
        Ok(Some(objects.collect()))
    }

    /// Removes an object without a trace, also from a bucket that is full. Its description first: without it the object is
    /// stored again when it is needed, and its pieces are not found. The other way round a description would promise
    /// what is not there.
    pub(super) async fn remove(core: &Core, bucket: &str, object: &Object) -> Result<(), BusError> {
        let (description, pieces) = (encoded(&object.name), &object.nuid);
        for subject in [format!("$O.{bucket}.M.{description}"), format!("$O.{bucket}.C.{pieces}")] {
            let address = format!("$JS.API.STREAM.PURGE.{}", stream_of(bucket));
            let request = serde_json::json!({ "filter": subject }).to_string();
            stream_api::ask::<IgnoredAny>(core, address, request.into()).await?;
        }
        Ok(())
    }
}

/// A name as it stands in a subject: URL-safe base64 with padding (ADR-20).
pub(super) fn encoded(name: &str) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE};
    URL_SAFE.encode(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_subjects_are_those_of_other_clients() {
        assert_eq!(encoded("0f?>"), "MGY_Pg==");
    }
}
