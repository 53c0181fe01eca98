//! What is wrong with a turn that runs, as a pure function of what the log says of it.

use throughline_schemas::StageName;

use crate::ports::bus::{Latest, Position};

/// How it stands with the work on a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing of it is in the log: what it begins with was never published, or has vanished.
    NotBegun,
    /// Its last event waits for a stage, or is in a worker's hands: it is merely slow.
    Held {
        /// The stage.
        stage: StageName,
        /// Sequence of the event.
        sequence: u64,
    },
    /// Its last event was acknowledged, so there was a next one, and that has vanished: no stage will go on with it.
    Lost {
        /// The stage that has to work on the last event again.
        stage: StageName,
    },
    /// The log has its end.
    Ended,
}

/// Judges a turn by its latest event. `position` must have been read before `latest`: an event is acknowledged only
/// when the next one is stored, so that one would have been found.
pub fn judge(latest: Option<&Latest>, position: &Position) -> Work {
    let Some(latest) = latest else { return Work::NotBegun };
    let Some(stage) = StageName::consumer_of(latest.key.event_type) else { return Work::Ended };
    if stage == StageName::Input {
        return Work::NotBegun;
    }
    match position.settled.get(&stage) {
        Some(settled) if latest.sequence <= *settled => Work::Lost { stage },
        Some(_) | None => Work::Held { stage, sequence: latest.sequence },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use throughline_schemas::{EventType, Timestamp};

    use super::*;

    fn judged(latest: Option<(EventType, u64)>) -> Work {
        let settled = BTreeMap::from([(StageName::Context, 10), (StageName::Generation, 7)]);
        let at = Timestamp::from_unix_ms(0);
        let latest =
            latest.map(|(event_type, sequence)| Latest { key: event_type.into(), sequence, stored_at: at });
        judge(latest.as_ref(), &Position { last: 20, settled, now: None })
    }

    #[test]
    fn only_an_acknowledged_event_without_a_successor_is_lost() {
        use EventType::{ContextRetrieved, ExternalDataFetched, InputValidated, UserInputReceived};
        assert_eq!(judged(None), Work::NotBegun);
        assert_eq!(judged(Some((UserInputReceived, 3))), Work::NotBegun, "the input is no part of the turn");
        assert_eq!(judged(Some((InputValidated, 10))), Work::Lost { stage: StageName::Context });
        assert_eq!(
            judged(Some((InputValidated, 11))),
            Work::Held { stage: StageName::Context, sequence: 11 }
        );
        let waiting = Work::Held { stage: StageName::Generation, sequence: 8 };
        assert_eq!(judged(Some((ExternalDataFetched, 8))), waiting);
        let unknown = Work::Held { stage: StageName::External, sequence: 1 };
        assert_eq!(
            judged(Some((ContextRetrieved, 1))),
            unknown,
            "a stage that nobody knows of is given time"
        );
        for end in [EventType::InteractionSaved, EventType::WorkflowFailed] {
            assert_eq!(judged(Some((end, 2))), Work::Ended);
        }
    }
}
