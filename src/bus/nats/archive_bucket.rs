//! An object store bucket of the server as a place for archives.

use std::{path::Path, time::Duration};

use async_nats::jetstream::{
    object_store::{self, GetErrorKind, ObjectMetadata, ObjectStore},
    stream::StorageType,
};
use throughline_actors::ports::bus::BusError;
use throughline_schemas::Timestamp;
use tokio::{fs::File, io::BufReader};

use super::{
    NatsBus, erase,
    error::unavailable_because,
    large_bodies,
    objects::{Object, Objects, stream_of},
    requests,
};

/// How long storing or fetching one archive may take.
const TRANSFER_LIMIT: Duration = Duration::from_mins(10);
/// How long looking for the bucket may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A bucket, bound.
pub struct ArchiveBucket {
    bus: NatsBus,
    name: String,
    store: ObjectStore,
}

/// An archive in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InBucket {
    /// Its name.
    pub name: String,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// When it was stored, by the server's clock.
    pub stored_at: Timestamp,
}

impl NatsBus {
    /// Makes the bucket if there is none; whether it was made. One that is there is left as it is.
    pub async fn create_archive_bucket(&self, name: &str, replicas: usize) -> Result<bool, BusError> {
        let core = &self.core;
        let stream = stream_of(name);
        if !requests::stream_is_missing(core, &stream).await {
            return Ok(false);
        }
        let config = object_store::Config {
            bucket: name.to_owned(),
            description: Some(
                "Throughline: archives of events that retention removed from the log".to_owned(),
            ),
            storage: StorageType::File,
            num_replicas: replicas,
            ..object_store::Config::default()
        };
        match core.connection.jetstream.create_object_store(config).await {
            Ok(_) => Ok(true),
            Err(error) => Err(unavailable_because(format!("making the bucket {name}"), error)),
        }
    }

    /// The bucket of this name, which must be there.
    pub async fn archive_bucket(&self, name: &str) -> Result<ArchiveBucket, BusError> {
        let bound = within(LIMIT, "looking for the bucket of archives", async {
            self.core.connection.jetstream.get_object_store(name).await
        });
        let store = bound.await.map_err(|error| match error {
            BusError::Unavailable { .. } if !self.is_connected_now() => error,
            BusError::Unavailable { .. }
            | BusError::Full(_)
            | BusError::BodiesFull(_)
            | BusError::TooLarge { .. }
            | BusError::NotSetUp(_)
            | BusError::Forbidden(_)
            | BusError::Encode(_) => BusError::NotSetUp(format!(
                "the bucket {name} of retention.archive cannot be used; make it with `throughline setup`"
            )),
        })?;
        Ok(ArchiveBucket { bus: self.clone(), name: name.to_owned(), store })
    }

    /// Sequence of the first message of the log, or of the next one.
    pub async fn first_sequence(&self) -> Result<u64, BusError> {
        super::retention::first(&self.core).await
    }

    fn is_connected_now(&self) -> bool {
        self.core.connection.client.connection_state() == async_nats::connection::State::Connected
    }
}

impl ArchiveBucket {
    /// Stores a file under a name. What has the name is replaced once all of the file is there.
    pub async fn put(&self, name: &str, file: &Path) -> Result<(), BusError> {
        within(TRANSFER_LIMIT, "storing an archive", async {
            let mut reader = BufReader::new(File::open(file).await.map_err(Box::new)?);
            let chunk_size = Some(large_bodies::piece_bytes(&self.bus.core));
            let metadata = ObjectMetadata { name: name.to_owned(), chunk_size, ..ObjectMetadata::default() };
            self.store.put(metadata, &mut reader).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        })
        .await
    }

    /// Fetches an archive into a file, which is replaced, and compares its checksum; `false` if there is none.
    pub async fn get(&self, name: &str, file: &Path) -> Result<bool, BusError> {
        within(TRANSFER_LIMIT, "fetching an archive", async {
            let mut object = match self.store.get(name).await {
                Ok(object) => object,
                Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if object.info().deleted {
                return Ok(false);
            }
            let mut file = File::create(file).await?;
            tokio::io::copy(&mut object, &mut file).await?;
            file.sync_all().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(true)
        })
        .await
    }

    /// What is in it, the oldest first.
    pub async fn list(&self) -> Result<Vec<InBucket>, BusError> {
        let listed = |object: Object| {
            let Object { name, bytes, stored_at, .. } = object;
            InBucket { name, bytes, stored_at }
        };
        Ok(self.objects().await?.into_iter().map(listed).collect())
    }

    /// Removes these archives; how many there were.
    pub async fn remove(&self, is_old: impl Fn(&str, Timestamp) -> bool) -> Result<u64, BusError> {
        let mut removed = 0;
        for object in self.objects().await? {
            if is_old(&object.name, object.stored_at) {
                Objects::remove(&self.bus.core, &self.name, &object).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Erases an archive: the server overwrites its pieces. Whether there was one.
    pub async fn erase(&self, name: &str) -> Result<bool, BusError> {
        erase::erase_object(&self.bus.core, &self.name, name).await
    }

    async fn objects(&self) -> Result<Vec<Object>, BusError> {
        let mut objects = Objects::of(&self.bus.core, &self.name);
        let mut all = Vec::new();
        while let Some(page) = objects.page().await? {
            all.extend(page);
        }
        Ok(all)
    }

    /// As in `bucket:NAME/ARCHIVE`.
    pub fn place_of(&self, archive: &str) -> String {
        format!("bucket:{}/{archive}", self.name)
    }
}

async fn within<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, BusError> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(unavailable_because(what, error)),
        Err(elapsed) => Err(unavailable_because(what, elapsed)),
    }
}
