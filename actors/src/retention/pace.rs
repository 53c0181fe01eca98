//! How fast the log grows, from what the last looks found.

use std::time::Duration;

use tokio::time::Instant;

use crate::{policy::retention::float, ports::log::Fill};

/// What is older than this counts little.
const MEMORY: Duration = Duration::from_mins(2);

/// A running average of the growth.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<(Instant, u64)>,
    per_second: Option<f64>,
}

impl Pace {
    /// Takes the next look; the growth in bytes a second, as if nothing were removed.
    pub(super) fn look(&mut self, fill: &Fill) -> f64 {
        let now = Instant::now();
        let before = self.last.replace((now, fill.last));
        let Some((at, last)) = before else { return 0.0 };
        let elapsed = now.duration_since(at).as_secs_f64();
        if elapsed <= 0.0 {
            return self.per_second.unwrap_or_default();
        }
        let size = float(fill.bytes) / float(fill.messages.max(1));
        let seen = float(fill.last.saturating_sub(last)) * size / elapsed;
        let weight = elapsed / (elapsed + MEMORY.as_secs_f64());
        let known = self.per_second.map_or(seen, |known| known + (seen - known) * weight);
        // A burst counts at once: it is what fills the log.
        let known = known.max(seen * 0.5);
        self.per_second = Some(known);
        known
    }
}

#[cfg(test)]
mod tests {
    use throughline_schemas::Timestamp;

    use super::*;

    fn fill(last: u64) -> Fill {
        Fill {
            now: Timestamp::from_unix_ms(0),
            first: 1,
            last,
            messages: last,
            bytes: last * 1_000,
            max_bytes: Some(1_000_000),
            needed: None,
            others: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn growth_is_what_came_however_much_was_removed() {
        let mut pace = Pace::default();
        assert!(pace.look(&fill(0)).abs() < f64::EPSILON, "one look tells nothing");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!((pace.look(&fill(100)) - 10_000.0).abs() < 1.0);
        tokio::time::advance(Duration::from_secs(10)).await;
        let removed = Fill { first: 150, messages: 51, bytes: 51_000, ..fill(200) };
        assert!((pace.look(&removed) - 10_000.0).abs() < 1.0);
    }
}
