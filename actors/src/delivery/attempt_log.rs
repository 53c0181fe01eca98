//! What earlier deliveries of a message did: a note, left by whoever hands a message back, read by whoever is given it
//! next. Best effort: without it a workflow goes on all the same, and its record says how many deliveries it lacks.

use throughline_schemas::{StageName, event::generation::Attempt};

use crate::{
    metrics,
    policy::limits::{BUS_RETRY_DELAY, NOTE_BYTES, NOTE_TRIES},
    ports::bus::{Bus, BusError, Note},
};

/// What is known of the deliveries before the `made + 1`-th one.
pub(crate) async fn earlier(bus: &dyn Bus, stage: StageName, sequence: u64, made: u32) -> Note {
    if made == 0 {
        return Note::default();
    }
    let note = match trying(|| bus.note(stage, sequence)).await {
        Ok(note) => note.unwrap_or_default(),
        Err(error) => {
            lost(stage, sequence, &error.to_string());
            Note::default()
        }
    };
    // Somebody who had lost the message may have left one later.
    let note = if note.delivery <= made { note } else { Note::default() };
    let unknown = note.unknown.saturating_add(made.saturating_sub(note.delivery));
    Note { delivery: made, unknown, attempts: note.attempts }
}

/// Leaves what a delivery and those before it did.
pub(crate) async fn keep(bus: &dyn Bus, stage: StageName, sequence: u64, note: &Note) {
    match serde_json::to_vec(note) {
        Ok(json) if json.len() <= NOTE_BYTES => {}
        Ok(json) => return lost(stage, sequence, &format!("{} bytes are too many", json.len())),
        Err(error) => return lost(stage, sequence, &error.to_string()),
    }
    if let Err(error) = trying(|| bus.keep_note(stage, sequence, note)).await {
        lost(stage, sequence, &error.to_string());
    }
}

async fn trying<T, F: Future<Output = Result<T, BusError>>>(op: impl Fn() -> F) -> Result<T, BusError> {
    let mut tried = 1;
    loop {
        match op().await {
            Ok(done) => return Ok(done),
            Err(error) if tried >= NOTE_TRIES => return Err(error),
            Err(_) => {}
        }
        tried += 1;
        tokio::time::sleep(BUS_RETRY_DELAY).await;
    }
}

fn lost(stage: StageName, sequence: u64, why: &str) {
    tracing::warn!(%stage, sequence, why, "the note on earlier deliveries is lost; their attempts are not on record");
    metrics::note_lost(stage);
}

impl Note {
    /// With the attempts of one more delivery, all of which stand in `attempts`.
    pub(crate) fn and(&self, attempts: Vec<Attempt>) -> Self {
        Self { delivery: self.delivery.saturating_add(1), unknown: self.unknown, attempts }
    }
}
