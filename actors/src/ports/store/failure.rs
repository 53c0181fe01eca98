//! Why a turn failed, as a store keeps it.

use std::collections::BTreeMap;

use throughline_schemas::{FailureCode, WorkflowFailed};

/// Most bytes of a failure that a store keeps.
pub const FAILURE_RECORD_BYTES: usize = 4096;

/// Stands where a message was cut.
const CUT: &str = "...";

/// A failure as it is kept beside its turn: without its attempts and what sources answered, which only the event has, and with a message that is cut
/// so that all of it is no longer than [`FAILURE_RECORD_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureRecord {
    code: FailureCode,
    encoded: Vec<u8>,
}

impl FailureRecord {
    /// The record of this failure.
    pub fn of(failed: &WorkflowFailed) -> Self {
        let mut kept = WorkflowFailed {
            code: failed.code,
            stage: failed.stage,
            message: failed.message.clone(),
            attempts: failed.attempts,
            retryable: failed.retryable,
            may_have_happened: failed.may_have_happened,
            superseded_by: failed.superseded_by.clone(),
            earlier_deliveries: failed.earlier_deliveries,
            attempt_log: Vec::new(),
            external: BTreeMap::new(),
        };
        let mut encoded = encode(&kept);
        if let Some(excess) = encoded.len().checked_sub(FAILURE_RECORD_BYTES).filter(|excess| *excess > 0) {
            // No character is shorter in JSON than it is.
            let room = kept.message.len().saturating_sub(excess + CUT.len());
            kept.message.truncate(kept.message.floor_char_boundary(room));
            kept.message.push_str(CUT);
            encoded = encode(&kept);
        }
        Self { code: failed.code, encoded }
    }

    /// What kind of failure it is.
    pub fn code(&self) -> FailureCode {
        self.code
    }

    /// As a store keeps it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }

    /// The failure that a store kept; `None` if it cannot be read.
    pub fn read(stored: &[u8]) -> Option<WorkflowFailed> {
        serde_json::from_slice(stored).ok()
    }
}

fn encode(failed: &WorkflowFailed) -> Vec<u8> {
    // Texts, numbers and names are always JSON.
    serde_json::to_vec(failed).unwrap_or_default()
}

/// The code that a store kept; what a later version wrote is [`FailureCode::Unrecognised`].
pub fn failure_code(stored: &str) -> FailureCode {
    serde_json::from_value(stored.into()).unwrap_or(FailureCode::Unrecognised)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{StageName, WorkflowId};

    use super::*;

    fn failed(message: &str) -> WorkflowFailed {
        WorkflowFailed {
            code: FailureCode::ModelRejected,
            stage: StageName::Generation,
            message: message.to_owned(),
            attempts: 3,
            retryable: true,
            may_have_happened: true,
            superseded_by: Some(WorkflowId::new("w").unwrap()),
            earlier_deliveries: 1,
            attempt_log: Vec::new(),
            external: BTreeMap::new(),
        }
    }

    #[test]
    fn a_short_failure_is_kept_as_it_is() {
        let failed = failed("the key was refused");
        let record = FailureRecord::of(&failed);
        assert_eq!(FailureRecord::read(record.as_bytes()), Some(failed));
        assert_eq!(failure_code(record.code().as_str()), FailureCode::ModelRejected);
        assert_eq!(failure_code("of_a_later_version"), FailureCode::Unrecognised);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        for text in ["x", "\u{e9}", "\0", "\"\n", "\u{1f600}"] {
            let long = text.repeat(9_000);
            let record = FailureRecord::of(&failed(&long));
            assert!(record.as_bytes().len() <= FAILURE_RECORD_BYTES, "{text:?}: {}", record.as_bytes().len());
            let kept = FailureRecord::read(record.as_bytes()).unwrap();
            let message = kept.message.strip_suffix(CUT).unwrap();
            assert!(long.starts_with(message), "{text:?}");
            assert_eq!(WorkflowFailed { message: long, ..kept }, failed(&text.repeat(9_000)));
        }
        let fits = "x".repeat(3_000);
        assert_eq!(FailureRecord::read(FailureRecord::of(&failed(&fits)).as_bytes()).unwrap().message, fits);
    }
}
