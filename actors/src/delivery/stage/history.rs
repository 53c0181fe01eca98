//! Deliveries that a consumer counts as new although their events may have been worked on before.
//!
//! A consumer that was recreated, rewound or restored forgets what it has delivered, and a stream that was restored may
//! hold events whose results it has lost. Looking for a result costs a request, and doing paid work twice costs
//! money, so a stage looks wherever it cannot be sure.

use std::time::Duration;

use throughline_schemas::Timestamp;

use crate::ports::bus::Delivery;

/// A first delivery that comes later than this after its event was stored is not taken for new. Covers a consumer that
/// is rewound while another process has seen what this one has not.
const NEW_FOR: Duration = Duration::from_secs(2);

/// What one stage of one process knows of the order of its deliveries.
#[derive(Debug)]
pub(super) struct History {
    /// The end of the log when the stage began, or the last first delivery since, whichever is later.
    up_to: u64,
}

impl History {
    /// `last` is the sequence of the log's last event.
    pub(super) fn since(last: u64) -> Self {
        Self { up_to: last }
    }

    /// Marks a delivery whose event may have been worked on. A consumer delivers in the order of the stream, so what
    /// comes behind something newer is not new.
    pub(super) fn mark(&mut self, delivery: Delivery, now: Timestamp) -> Delivery {
        if delivery.delivered > 1 {
            return delivery;
        }
        let late = u128::from(now.ms_since(delivery.published_at)) > NEW_FOR.as_millis();
        let maybe_worked_on = late || delivery.sequence <= self.up_to;
        self.up_to = self.up_to.max(delivery.sequence);
        Delivery { maybe_worked_on, ..delivery }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;
    use crate::ports::bus::{BusError, Receipt, Settlement};

    struct Nobody;

    #[async_trait]
    impl Receipt for Nobody {
        async fn settle(&self, _: Settlement) -> Result<(), BusError> {
            Ok(())
        }

        async fn progress(&self) -> Result<(), BusError> {
            Ok(())
        }
    }

    const NOW: i64 = 1_000_000;

    fn marked(history: &mut History, sequence: u64, delivered: u32, age_ms: i64) -> bool {
        let delivery = Delivery {
            subject: String::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            kept: None,
            sequence,
            delivered,
            maybe_worked_on: false,
            published_at: Timestamp::from_unix_ms(NOW - age_ms),
            received_at: Instant::now(),
            receipt: Arc::new(Nobody),
        };
        history.mark(delivery, Timestamp::from_unix_ms(NOW)).maybe_worked_on
    }

    #[test]
    fn what_was_stored_before_the_stage_began_may_have_been_worked_on() {
        let mut history = History::since(10);
        assert!(marked(&mut history, 7, 1, 0) && marked(&mut history, 10, 1, 0));
        assert!(!marked(&mut history, 11, 1, 0) && !marked(&mut history, 15, 1, 0));
    }

    #[test]
    fn a_consumer_that_goes_back_is_noticed() {
        let mut history = History::since(0);
        assert!(!marked(&mut history, 3, 1, 0) && !marked(&mut history, 9, 1, 0));
        assert!(marked(&mut history, 3, 1, 0) && marked(&mut history, 9, 1, 0));
        assert!(!marked(&mut history, 12, 1, 0));
    }

    #[test]
    fn what_comes_late_is_not_new_and_a_clock_that_is_behind_changes_nothing() {
        let mut history = History::since(0);
        assert!(!marked(&mut history, 1, 1, 2_000) && marked(&mut history, 2, 1, 2_001));
        assert!(!marked(&mut history, 3, 1, -3_600_000));
    }

    #[test]
    fn a_redelivery_is_known_as_one_already_and_moves_nothing() {
        let mut history = History::since(0);
        assert!(!marked(&mut history, 9, 2, 60_000));
        assert!(!marked(&mut history, 4, 1, 0));
    }
}
