//! The attempts of earlier deliveries of a message: written before a hand-back, read by the next delivery. Best effort:
//! without the log the workflow goes on all the same, and its record says how many deliveries it lacks.

use throughline_schemas::{StageName, event::generation::Attempt};

use crate::{
    metrics,
    policy::limits::{ATTEMPT_LOG_BYTES, ATTEMPT_LOG_TRIES, BUS_RETRY_DELAY},
    ports::bus::{AttemptLog, BusError, DeliveryState},
};

/// What is known of the deliveries before the `made + 1`-th one.
pub(crate) async fn earlier(
    bus: &dyn DeliveryState,
    stage: StageName,
    sequence: u64,
    made: u32,
) -> AttemptLog {
    if made == 0 {
        return AttemptLog::default();
    }
    let attempt_log = match trying(|| bus.attempt_log(stage, sequence)).await {
        Ok(attempt_log) => attempt_log.unwrap_or_default(),
        Err(error) => {
            lost(stage, sequence, &error.to_string());
            AttemptLog::default()
        }
    };
    // A delivery that had lost the message may have written one later.
    let attempt_log = if attempt_log.delivery <= made { attempt_log } else { AttemptLog::default() };
    let unknown = attempt_log.unknown.saturating_add(made.saturating_sub(attempt_log.delivery));
    AttemptLog { delivery: made, unknown, attempts: attempt_log.attempts }
}

/// Stores what a delivery and those before it did.
pub(crate) async fn keep(bus: &dyn DeliveryState, stage: StageName, sequence: u64, attempt_log: &AttemptLog) {
    match serde_json::to_vec(attempt_log) {
        Ok(json) if json.len() <= ATTEMPT_LOG_BYTES => {}
        Ok(json) => return lost(stage, sequence, &format!("{} bytes are too many", json.len())),
        Err(error) => return lost(stage, sequence, &error.to_string()),
    }
    if let Err(error) = trying(|| bus.keep_attempt_log(stage, sequence, attempt_log)).await {
        lost(stage, sequence, &error.to_string());
    }
}

async fn trying<T, F: Future<Output = Result<T, BusError>>>(op: impl Fn() -> F) -> Result<T, BusError> {
    let mut tried = 1;
    loop {
        match op().await {
            Ok(done) => return Ok(done),
            Err(error) if tried >= ATTEMPT_LOG_TRIES => return Err(error),
            Err(_) => {}
        }
        tried += 1;
        tokio::time::sleep(BUS_RETRY_DELAY).await;
    }
}

fn lost(stage: StageName, sequence: u64, why: &str) {
    tracing::warn!(%stage, sequence, why, "the attempt log of earlier deliveries is lost; their attempts are not on record");
    metrics::attempt_log_lost(stage);
}

impl AttemptLog {
    /// With the attempts of one more delivery, all of which stand in `attempts`.
    pub(crate) fn and(&self, attempts: Vec<Attempt>) -> Self {
        Self { delivery: self.delivery.saturating_add(1), unknown: self.unknown, attempts }
    }
}
