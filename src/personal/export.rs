//! Handing out what is theirs: one file of JSON lines.

use std::io::{self, Write};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::json;
use throughline_schemas::{
    Timestamp,
    recording::{Message, verbatim},
};

use super::{
    PersonalError, Stores, Whom,
    gather::{OnServer, Place, Turns},
    whom::Matcher,
};
use crate::{
    archive::{archives, theirs, theirs_in_bucket},
    bus::nats::StoredEvent,
    config::ArchivePlace,
};

/// What the first line says the file is.
const FORMAT: &str = "throughline-export";
const VERSION: u32 = 1;

/// How much was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Rows of the database.
    pub rows: u64,
    /// Messages of the event log.
    pub events: u64,
    /// Messages of archives.
    pub archived: u64,
    /// Dead letters, and records of what was done with them.
    pub letters: u64,
    /// Claims and notes.
    pub claims: u64,
}

/// A stored message, and where it is.
#[derive(Serialize)]
struct Line {
    store: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    message: Message,
}

/// Writes everything that is kept about them. The first line says what the file is and the last one how much is in it;
/// between them each line is a row of the database (`{"store": "turns", "row": {...}}`) or a message (`{"store": "events",
/// "message": {...}}`, which is written as in a recording). Large bodies are in their messages.
pub async fn export(
    stores: Stores<'_>,
    whom: &Whom,
    at: Timestamp,
    out: &mut (impl Write + Send),
) -> Result<Exported, PersonalError> {
    let Stores { bus, store, archives: place } = stores;
    let mut exported = Exported::default();
    let namespace = bus.namespace().to_string();
    let header = json!({
        "format": FORMAT, "version": VERSION, "created_at": at, "namespace": namespace, "of": whom.kind(), "id": whom.id(),
    });
    line(out, &header)?;
    let mut after = None;
    loop {
        let rows = store.rows_of(whom, &mut after).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            line(out, row)?;
        }
        exported.rows += rows.len() as u64;
    }
    let mut matcher = Matcher::new(whom.clone(), Turns::list(store, whom).await?.workflows);
    // Who is the beginning of a workflow's events in an archive is told before what is left of it in the log.
    match place {
        ArchivePlace::Off => {}
        ArchivePlace::File(folder) => {
            for (_, _, file) in archives(folder, &namespace)? {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
                let write = |event: &StoredEvent| message(out, "archives", name.clone(), event);
                exported.archived += theirs(&file, &mut matcher, write)?;
            }
        }
        ArchivePlace::Bucket(bucket) => {
            let write =
                |name: &str, event: &StoredEvent| message(out, "archives", Some(name.to_owned()), event);
            exported.archived = theirs_in_bucket(bus, bucket, &mut matcher, write).await?;
        }
    }
    OnServer::read(bus, &mut matcher, |place, event| {
        let (store, count) = match place {
            Place::Event => ("events", &mut exported.events),
            Place::Letter => ("dead_letters", &mut exported.letters),
            Place::Claim => ("claims", &mut exported.claims),
        };
        *count += 1;
        message(out, store, None, event)
    })
    .await?;
    line(out, &json!({ "written": exported }))?;
    out.flush()?;
    Ok(exported)
}

fn message(
    out: &mut impl Write,
    store: &'static str,
    file: Option<String>,
    event: &StoredEvent,
) -> io::Result<()> {
    let body = verbatim(&event.body);
    let message = Message {
        sequence: event.sequence,
        subject: event.subject.clone(),
        stored_at: event.stored_at,
        headers: event.headers.clone(),
        body_base64: body.is_none().then(|| STANDARD.encode(&event.body)),
        body,
    };
    line(out, &Line { store, file, message })
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    out.write_all(&bytes)
}
