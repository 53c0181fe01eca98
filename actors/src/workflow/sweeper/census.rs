//! Counts the open turns for the metrics: how many wait and run, and how old the oldest of each is.

use std::time::Duration;

use tokio::time::Instant;

use crate::{metrics, workflow::stage_context::StageContext};

/// Counting reads the index of all open turns, so it is not done more often, however often is swept.
const EVERY: Duration = Duration::from_secs(10);

/// When to count again.
#[derive(Default)]
pub(super) struct Census {
    due: Option<Instant>,
}

impl Census {
    /// Counts, if it is time to.
    pub(super) async fn take(&mut self, context: &StageContext) {
        let now = Instant::now();
        if self.due.is_some_and(|due| now < due) {
            return;
        }
        self.due = Some(now + EVERY);
        match context.store.open_turns().await {
            Ok(open) => metrics::open_turns(&open, context.clock.now()),
            // What a database lacks is reported by the code that needs it for work.
            Err(error) => tracing::debug!(%error, "open turns were not counted"),
        }
    }
}
