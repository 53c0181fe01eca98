//! Archives in an object store bucket of the NATS server.

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::NamedTempFile;
use throughline_actors::ports::{
    archive::{Archive, ArchiveError, Archived},
    bus::BusError,
    clock::Clock,
};
use throughline_schemas::{Timestamp, recording::Header};

use super::{
    failed, file_name,
    part::{Making, blocking},
    range_of,
    verify::{NotWhole, verify},
};
use crate::bus::nats::{ArchiveBucket, NatsBus};

/// Archives as objects in a bucket, which `throughline setup` makes. Each is written to the folder for temporary files
/// first.
pub struct Bucket {
    bus: Arc<NatsBus>,
    clock: Arc<dyn Clock>,
    name: String,
    header: Header,
}

impl Bucket {
    /// `header` is that of every archive, but for its selection and its time.
    pub fn new(bus: Arc<NatsBus>, clock: Arc<dyn Clock>, name: String, header: Header) -> Self {
        Self { bus, clock, name, header }
    }
}

#[async_trait]
impl Archive for Bucket {
    async fn keep(&self, first: u64, before: u64) -> Result<Archived, ArchiveError> {
        let name = file_name(&self.header.namespace, first, before);
        let range = (first, before);
        let bucket = self.bus.archive_bucket(&self.name).await;
        let bucket = bucket.map_err(|error| failed(&name, "its bucket cannot be used", error))?;
        match fetched(&bucket, &name, range).await? {
            // Written by a process that died before it removed what is in it.
            Some(Ok(messages)) => return Ok(Archived { name: bucket.place_of(&name), messages }),
            Some(Err(why)) => {
                tracing::warn!(archive = name, %why, "an archive is not whole, though it has its name; it is written again");
            }
            None => {}
        }
        let making =
            Making { bus: &self.bus, clock: self.clock.as_ref(), header: &self.header, name: &name, range };
        let (file, messages) = making.write(&std::env::temp_dir()).await?;
        // Another process that archived the same messages and was quicker has removed some of them while they were read
        // here: this file lacks them and must not replace that one.
        let begins = self.bus.first_sequence().await;
        let begins =
            begins.map_err(|error| failed(&name, "the log cannot be asked where it begins", error))?;
        if begins > first {
            return match fetched(&bucket, &name, range).await? {
                Some(Ok(messages)) => Ok(Archived { name: bucket.place_of(&name), messages }),
                Some(Err(_)) | None => Err(ArchiveError::NotVerified {
                    name,
                    reason: "messages were removed from the log while they were read".to_owned(),
                }),
            };
        }
        let put = bucket.put(&name, file.path()).await;
        put.map_err(|error| failed(&name, "it cannot be stored; see to the room of its bucket", error))?;
        match fetched(&bucket, &name, range).await? {
            Some(Ok(found)) if found == messages => {
                Ok(Archived { name: bucket.place_of(&name), messages: found })
            }
            Some(Ok(found)) => {
                let reason = format!("{messages} messages were written and {found} were read back");
                Err(ArchiveError::NotVerified { name, reason })
            }
            Some(Err(why)) => Err(ArchiveError::NotVerified { name, reason: why.to_string() }),
            None => Err(ArchiveError::NotVerified { name, reason: "it is not there".to_owned() }),
        }
    }

    async fn forget(&self, written_before: Timestamp) -> Result<u64, ArchiveError> {
        let removed = async {
            let bucket = self.bus.archive_bucket(&self.name).await?;
            let is_old = |name: &str, stored_at: Timestamp| {
                range_of(name, &self.header.namespace).is_some() && stored_at < written_before
            };
            bucket.remove(is_old).await
        };
        removed.await.map_err(|error: BusError| failed("", "old archives cannot be removed", error))
    }
}

/// What is stored under this name, read from its first byte to its last: how many messages, or why it is not whole.
async fn fetched(
    bucket: &ArchiveBucket,
    name: &str,
    (first, before): (u64, u64),
) -> Result<Option<Result<u64, NotWhole>>, ArchiveError> {
    let file = blocking(NamedTempFile::new).await;
    let file = file.map_err(|error| failed(name, "a temporary file cannot be made", error))?;
    let got = bucket.get(name, file.path()).await;
    if !got.map_err(|error| failed(name, "it cannot be read back", error))? {
        return Ok(None);
    }
    let read = blocking(move || Ok::<_, std::io::Error>(verify(file.path(), first, before))).await;
    read.map(Some).map_err(|error| failed(name, "it cannot be read back", error))
}
