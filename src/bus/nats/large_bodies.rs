//! Large bodies live in an object store bucket under the SHA-256 of their bytes; the event carries the name.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectMetadata, ObjectStore, PutError};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use throughline_actors::{
    dependency::cause::error_chain,
    policy::memory::LARGEST_BODY_BYTES,
    ports::bus::{BusError, KeptBody},
};
use throughline_schemas::EventType;
use tokio::{
    io::AsyncReadExt,
    sync::{OnceCell, Semaphore},
    time::Instant,
};

use super::{
    Core,
    error::{unavailable, unavailable_because},
    headers, probe, requests,
};

/// Events up to this size travel in the message itself, unless the server takes less.
pub(super) const INLINE_BYTES: usize = 64 * 1024;
/// An event up to this size is not compared with what the server takes: no server that serves takes less.
pub(super) const SMALL_BYTES: usize = 4 * 1024;
/// Ends up to this size, and up to half of what the server takes, travel in the message, too: a reader that may see an end
/// need not be one who may read bodies, which are inputs and prompts as well.
pub(super) const INLINE_END_BYTES: usize = 512 * 1024;
/// Bodies are stored in pieces of this size, unless the server takes less.
const PIECE_BYTES: usize = 128 * 1024;
/// What a message needs besides its body: subject, headers and what the server adds, in bytes.
const HEADROOM_BYTES: usize = 2048;
/// Largest body that is stored or fetched.
#[allow(clippy::cast_possible_truncation, reason = "it is far below the size of any address space")]
pub(super) const MAX_BODY_BYTES: usize = LARGEST_BODY_BYTES as usize;
/// How long storing or fetching one body may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(10);
/// How many bodies are fetched at once. A stage has memory for its body already; readers do not.
const TRANSFERS: usize = 8;
/// What the server says when it, the account or the bucket has no room left.
const NO_STORAGE: [&str; 4] = [
    "maximum bytes exceeded",
    "insufficient storage resources",
    "insufficient resources",
    "resource limits exceeded",
];
/// For how long this process takes for granted that a body which it stored is there. Older ones are stored again: what was
/// stored before the log begins counts as unnamed (`release.rs`).
const STORED_JUST_NOW: Duration = Duration::from_secs(10);
/// A body that was stored so long before a message is not named by that message. Longer than storing and publishing takes.
pub(super) const STORED_BEFORE: Duration = Duration::from_secs(40);
/// How many of the bodies that were stored last are remembered.
const REMEMBERED: usize = 64;
/// Room behind a body that is fetched, in bytes.
const SPARE_BYTES: usize = 64;
/// Length of a SHA-256 in hex.
const NAME_BYTES: usize = 64;

/// What a server that takes less than usual makes of large events; `None` of others.
pub(super) fn small_payload(core: &Core) -> Option<String> {
    let max_payload = core.connection.facts().max_payload;
    let (inline, piece) = (fitting(INLINE_BYTES, max_payload), fitting(PIECE_BYTES, max_payload));
    (piece < PIECE_BYTES).then(|| {
        format!(
            "it takes {max_payload} bytes at once, so events of more than {inline} bytes are kept in the object store, in \
             pieces of {piece} bytes"
        )
    })
}

/// In pieces of this size objects are stored on this server.
pub(super) fn piece_bytes(core: &Core) -> usize {
    fitting(PIECE_BYTES, core.connection.facts().max_payload)
}

/// What is left of a size where the server takes only `max_payload` bytes at once.
fn fitting(size: usize, max_payload: usize) -> usize {
    // However small: the server says what it does not take.
    size.min(max_payload.saturating_sub(HEADROOM_BYTES)).max(1)
}

/// The bucket.
pub(super) struct Bodies {
    bucket: String,
    store: OnceCell<ObjectStore>,
    transfers: Semaphore,
    /// What this process stored last, and when.
    stored: Mutex<VecDeque<(String, Instant)>>,
}

impl Bodies {
    pub(super) fn new(bucket: String) -> Self {
        let stored = Mutex::new(VecDeque::with_capacity(REMEMBERED));
        Self { bucket, store: OnceCell::new(), transfers: Semaphore::new(TRANSFERS), stored }
    }

    /// What an event's `dataref` says of a body.
    pub(super) fn uri(&self, name: &str) -> String {
        format!("nats-object://{}/{name}", self.bucket)
    }

    /// Stores a body and returns its name. Idempotent; what has been stored for longer than a moment is stored again.
    pub(super) async fn put(&self, core: &Core, body: Bytes) -> Result<String, BusError> {
        if body.len() > MAX_BODY_BYTES {
            return Err(BusError::TooLarge { bytes: body.len() });
        }
        let name = hex(&Sha256::digest(&body));
        let stored = async {
            let store = self.store(core).await?;
            if self.stored_just_now(&name) {
                match store.info(&name).await {
                    // The size guards against nothing but a bucket that another program wrote to.
                    Ok(info) if !info.deleted && info.size == body.len() => return Ok(()),
                    Ok(_) => {}
                    Err(error) if error.kind() == InfoErrorKind::NotFound => {}
                    Err(error) => return Err(unavailable_because("looking for a stored body", error)),
                }
            }
            let began = Instant::now();
            // Pieces of what does not fit as a whole would be left behind.
            self.room(core, body.len()).await?;
            let chunk_size = Some(piece_bytes(core));
            let metadata = ObjectMetadata { name: name.clone(), chunk_size, ..ObjectMetadata::default() };
            match store.put(metadata, &mut body.as_ref()).await {
                Ok(_) => {
                    self.remember(&name, began);
                    Ok(())
                }
                Err(error) => {
                    // Others may have taken the room meanwhile.
                    self.room(core, body.len()).await?;
                    Err(refused(error))
                }
            }
        };
        self.within(core, stored, "storing a large body").await?;
        Ok(name)
    }

    fn stored_just_now(&self, name: &str) -> bool {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.iter().any(|(known, at)| known == name && at.elapsed() < STORED_JUST_NOW)
    }

    fn remember(&self, name: &str, at: Instant) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if stored.len() >= REMEMBERED {
            stored.pop_front();
        }
        stored.push_back((name.to_owned(), at));
    }

    /// Fetches a body by its name and checks that it is what the name says.
    pub(super) async fn fetch(&self, core: &Core, name: &str) -> Result<Bytes, BusError> {
        let fetched = async {
            let failed = |error| unavailable_because("fetching a large body", error);
            // Never closed.
            let Ok(_permit) = self.transfers.acquire().await else {
                return Err(unavailable("fetching a large body"));
            };
            let store = self.store(core).await?;
            let object =
                store.get(name).await.map_err(|error| unavailable_because("fetching a large body", error))?;
            if object.info().size > MAX_BODY_BYTES {
                return Err(BusError::TooLarge { bytes: object.info().size });
            }
            // A reader that finds no room left at the end would double it.
            let mut body = Vec::with_capacity(object.info().size + SPARE_BYTES);
            let limit = u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX);
            object.take(limit).read_to_end(&mut body).await.map_err(failed)?;
            if hex(&Sha256::digest(&body)) != name {
                return Err(unavailable(format!("the stored body {name} is not what its name says")));
            }
            Ok(Bytes::from(body))
        };
        self.within(core, fetched, "fetching a large body").await
    }

    /// `Err` if the bucket has no room for a body of this size.
    async fn room(&self, core: &Core, bytes: usize) -> Result<(), BusError> {
        let stream = core.names.bodies_stream();
        let filling = requests::filling(core, &stream, core.settings.request_timeout).await?;
        let bytes = u64::try_from(bytes.saturating_add(HEADROOM_BYTES)).unwrap_or(u64::MAX);
        if filling.lacks_room_for(bytes) {
            return Err(BusError::BodiesFull(probe::no_room(&stream, &filling)));
        }
        Ok(())
    }

    /// Whether there is certainly no body of this name.
    pub(super) async fn is_gone(&self, core: &Core, name: &str) -> Result<bool, BusError> {
        let looked = async {
            match self.store(core).await?.info(name).await {
                Ok(info) => Ok(info.deleted),
                Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(true),
                Err(error) => Err(unavailable_because("looking for a stored body", error)),
            }
        };
        self.within(core, looked, "looking for a stored body").await
    }

    async fn within<T>(
        &self,
        core: &Core,
        work: impl Future<Output = Result<T, BusError>>,
        what: &'static str,
    ) -> Result<T, BusError> {
        let permitted = core.connection.complaints().unless_forbidden(&self.bucket, Box::pin(work));
        match tokio::time::timeout(TRANSFER_LIMIT, permitted).await {
            Ok(done) => done?,
            Err(_) => Err(unavailable(format!("{what} took longer than {TRANSFER_LIMIT:?}"))),
        }
    }

    async fn store(&self, core: &Core) -> Result<&ObjectStore, BusError> {
        self.store
            .get_or_try_init(|| core.connection.jetstream.get_object_store(self.bucket.as_str()))
            .await
            .map_err(|error| {
                tracing::debug!(%error, "cannot bind to the bucket");
                BusError::NotSetUp(format!("the object store {} cannot be used", self.bucket))
            })
    }
}

/// Whether an event whose body was stored at this time is published too late to be sure that the body is still there: the
/// process may have stood still in between.
pub(super) fn may_be_gone(stored: Instant) -> bool {
    stored.elapsed() > STORED_BEFORE / 2
}

/// Up to which size an event travels in its message, on a server that takes messages of `max_payload` bytes.
pub(super) fn inline_bytes(event_type: EventType, max_payload: usize) -> usize {
    let most = if event_type.is_end() {
        INLINE_END_BYTES.min(max_payload / 2).max(INLINE_BYTES)
    } else {
        INLINE_BYTES
    };
    fitting(most, max_payload)
}

/// Why a body was not stored. The client gives the server's answer as a text only.
fn refused(error: PutError) -> BusError {
    let text = error_chain(&error);
    let is_full = NO_STORAGE.iter().any(|words| text.contains(words));
    if is_full { BusError::BodiesFull(text) } else { unavailable_because("storing a large body", error) }
}

/// Whether a header's value can be the name of a body: nothing but a lower-case hex SHA-256.
pub(super) fn is_name(text: &str) -> bool {
    text.len() == NAME_BYTES && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The body that a message's headers name. One of an earlier version does not say its size, and may be as
/// large as any.
pub(super) fn kept(headers: &[(String, String)]) -> Option<KeptBody> {
    let of = |wanted: &str| {
        headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.as_str())
    };
    let name = of(headers::BODY).filter(|name| is_name(name))?.to_owned();
    let bytes = of(headers::BODY_BYTES).and_then(|bytes| bytes.parse().ok()).unwrap_or(LARGEST_BODY_BYTES);
    Some(KeptBody { name, bytes: bytes.min(LARGEST_BODY_BYTES) })
}

fn hex(digest: &[u8]) -> String {
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(u32::from(nibble), 16))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_travel_in_their_messages_as_far_as_the_server_takes_them() {
        let (end, other) = (EventType::InteractionSaved, EventType::ResponseGenerated);
        for (event_type, max_payload, wanted) in [
            (other, 1 << 20, INLINE_BYTES),
            (end, 1 << 20, INLINE_END_BYTES),
            (end, 8 << 20, INLINE_END_BYTES),
            (end, 256 * 1024, 128 * 1024),
            (end, 64 * 1024, 64 * 1024 - HEADROOM_BYTES),
            (other, 32 * 1024, 32 * 1024 - HEADROOM_BYTES),
        ] {
            assert_eq!(inline_bytes(event_type, max_payload), wanted, "{event_type} {max_payload}");
        }
    }

    #[test]
    fn whatever_is_sent_fits_into_what_the_server_takes() {
        const MIB: usize = 1 << 20;
        assert_eq!((fitting(INLINE_BYTES, MIB), fitting(PIECE_BYTES, MIB)), (65_536, 131_072));
        assert_eq!((fitting(INLINE_BYTES, 100_000), fitting(PIECE_BYTES, 100_000)), (65_536, 97_952));
        assert_eq!(fitting(INLINE_BYTES, 32_768), 30_720);
        assert_eq!(fitting(INLINE_BYTES, 10), 1, "no panic, whatever the server says of itself");
    }

    #[test]
    fn a_message_names_its_body_and_says_how_large_it_is() {
        let name = hex(&Sha256::digest(b"x"));
        let kept_of = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            kept(&pairs).map(|kept| (kept.name, kept.bytes))
        };
        let named = |bytes| Some((name.clone(), bytes));
        assert_eq!(
            kept_of(&[("throughline-body", &name), ("Throughline-Body-Bytes", "70000")]),
            named(70_000)
        );
        for unsaid in ["", "x", "-1", "99999999999999"] {
            let said = kept_of(&[(headers::BODY, &name), (headers::BODY_BYTES, unsaid)]);
            assert_eq!(said, named(LARGEST_BODY_BYTES), "{unsaid}");
        }
        assert_eq!(kept_of(&[(headers::BODY, &name)]), named(LARGEST_BODY_BYTES));
        assert_eq!(kept_of(&[(headers::BODY, "../x"), (headers::BODY_BYTES, "1")]), None);
    }

    #[test]
    fn only_a_hash_is_a_name() {
        assert!(is_name(&hex(&Sha256::digest(b"x"))));
        for bad in ["", "../../etc/passwd", &"A".repeat(64), &"0".repeat(63), &"*".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
