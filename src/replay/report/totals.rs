//! What a re-run came to in total. Both sides are about the same workflows: those that were run.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;
use throughline_schemas::{FailureCode, FinishReason, Usd};

use super::{Answer, Row, Side};

/// Totals of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Workflows that were run.
    pub run: usize,
    /// Workflows that were selected and not run.
    pub not_run: usize,
    /// The same, by why.
    pub not_run_because: BTreeMap<String, usize>,
    /// Answers that are the same to the letter.
    pub same: usize,
    /// Answers that differ.
    pub changed: usize,
    /// Failed before, answered now.
    pub newly_answered: usize,
    /// Answered before, failed now.
    pub newly_failed: usize,
    /// As it was.
    pub before: SideTotals,
    /// As it came out now.
    pub after: SideTotals,
}

/// Totals of one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SideTotals {
    /// Workflows with an answer.
    pub answered: usize,
    /// Workflows that failed.
    pub failed: usize,
    /// Failures by code.
    pub failures: BTreeMap<FailureCode, usize>,
    /// Answers by why they stopped.
    pub finish_reasons: BTreeMap<FinishReason, usize>,
    /// Answers by model.
    pub models: BTreeMap<String, usize>,
    /// Words of an answer, on average.
    pub words_mean: Option<f64>,
    /// Tokens of the answering calls' prompts.
    pub input_tokens: u64,
    /// Tokens of the answers, reasoning included.
    pub output_tokens: u64,
    /// Calls made.
    pub attempts: u64,
    /// What is known of the cost of all calls.
    pub cost_usd: Usd,
    /// Workflows whose calls cost more than that, by an unknown amount.
    pub cost_unknown: usize,
    /// Half of the answers took no longer, from the first request to the answer.
    pub latency_p50_ms: Option<u64>,
    /// 19 of 20 answers took no longer.
    pub latency_p95_ms: Option<u64>,
}

impl Totals {
    /// Counts.
    pub fn of(rows: &[Row]) -> Self {
        let mut totals = Self::default();
        let (mut before, mut after) = (Gathering::default(), Gathering::default());
        for row in rows {
            if let Side::NotRun { reason } = &row.after {
                totals.not_run += 1;
                *totals.not_run_because.entry(reason.clone()).or_default() += 1;
                continue;
            }
            totals.run += 1;
            before.add(&row.before);
            after.add(&row.after);
            match (&row.before, &row.after) {
                (Side::Answered(before), Side::Answered(after)) if before.text == after.text => {
                    totals.same += 1;
                }
                (Side::Answered(_), Side::Answered(_)) => totals.changed += 1,
                (Side::Answered(_), Side::Failed { .. }) => totals.newly_failed += 1,
                (Side::Failed { .. }, Side::Answered(_)) => totals.newly_answered += 1,
                (Side::Failed { .. } | Side::NotRun { .. }, _) | (_, Side::NotRun { .. }) => {}
            }
        }
        totals.before = before.finish();
        totals.after = after.finish();
        totals
    }
}

#[derive(Default)]
struct Gathering {
    totals: SideTotals,
    words: usize,
    latencies: Vec<u64>,
    cost: Decimal,
}

impl Gathering {
    fn add(&mut self, side: &Side) {
        let totals = &mut self.totals;
        let (cost, is_partial, attempts) = match side {
            Side::Answered(answer) => {
                totals.answered += 1;
                *totals.finish_reasons.entry(answer.finish_reason).or_default() += 1;
                *totals.models.entry(answer.model.clone()).or_default() += 1;
                totals.input_tokens += answer.usage.input_tokens;
                totals.output_tokens += answer.usage.output_tokens;
                self.words += words(answer);
                self.latencies.push(answer.latency_ms);
                (answer.cost_usd, answer.cost_is_partial, answer.attempts)
            }
            Side::Failed { code, attempts, cost_usd, .. } => {
                totals.failed += 1;
                *totals.failures.entry(*code).or_default() += 1;
                (*cost_usd, cost_usd.is_none() && *attempts > 0, *attempts)
            }
            Side::NotRun { .. } => return,
        };
        totals.attempts += u64::from(attempts);
        self.cost += cost.map_or(Decimal::ZERO, Usd::dollars);
        if is_partial || (cost.is_none() && matches!(side, Side::Answered(_))) {
            totals.cost_unknown += 1;
        }
    }

    fn finish(mut self) -> SideTotals {
        self.latencies.sort_unstable();
        let mut totals = self.totals;
        totals.cost_usd = Usd::new(self.cost);
        totals.latency_p50_ms = percentile(&self.latencies, 50);
        totals.latency_p95_ms = percentile(&self.latencies, 95);
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        if totals.answered > 0 {
            totals.words_mean = Some(self.words as f64 / totals.answered as f64);
        }
        totals
    }
}

/// How long an answer is to its reader.
pub fn words(answer: &Answer) -> usize {
    answer.text.split_whitespace().count()
}

/// The smallest value that is not exceeded by `percent` of all (nearest rank).
fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[7], 95), Some(7));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 95)), (Some(50), Some(95)));
        assert_eq!(percentile(&[1, 2, 3], 50), Some(2));
    }

    #[test]
    fn both_sides_are_about_what_was_run() {
        use crate::replay::report::testing::{answered, failed, row};
        let rows = [
            row("a", answered("one two", "0.01", 100), answered("one two", "0.02", 50)),
            row("b", answered("one two three four", "0.01", 300), answered("other", "0.02", 70)),
            row("c", failed("0.05"), answered("now it works", "0.02", 60)),
            row("d", answered("x", "0.01", 200), failed("0.00")),
            row("e", answered("left out", "9", 1), Side::NotRun { reason: "budget".to_owned() }),
        ];
        let totals = Totals::of(&rows);
        assert_eq!((totals.run, totals.not_run, totals.same, totals.changed), (4, 1, 1, 1));
        assert_eq!((totals.newly_answered, totals.newly_failed), (1, 1));
        assert_eq!(totals.not_run_because, BTreeMap::from([("budget".to_owned(), 1)]));
        assert_eq!((totals.before.answered, totals.before.failed), (3, 1));
        assert_eq!(totals.before.cost_usd.dollars(), "0.08".parse().unwrap());
        assert_eq!(totals.after.cost_usd.dollars(), "0.06".parse().unwrap());
        assert_eq!((totals.before.latency_p50_ms, totals.before.latency_p95_ms), (Some(200), Some(300)));
        assert_eq!(totals.before.words_mean.map(|mean| (mean * 3.0).round()), Some(7.0));
        assert_eq!(totals.before.cost_unknown, 0);
    }
}
