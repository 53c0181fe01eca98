//! Counting what became of the lines of a file.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{cli::timeline, client::End};

/// Significant digits of latencies.
const DIGITS: u8 = 3;
/// Longest latency told apart, in microseconds: a day.
const LONGEST_MICROS: u64 = 24 * 60 * 60 * 1_000_000;

/// What became of the lines so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Lines read that were not blank.
    pub(super) lines: u64,
    /// Lines that the stream has.
    pub(super) published: u64,
    /// How many of these it had before.
    pub(super) duplicates: u64,
    /// Lines that were not published because of what they say.
    pub(super) bad: u64,
    /// Lines of which it is not known that the stream has them.
    pub(super) unpublished: u64,
    /// Workflows that ended well.
    pub(super) saved: u64,
    /// How many of these lack the data of a source that failed.
    pub(super) degraded: u64,
    /// Workflows that failed, by code.
    pub(super) failed: BTreeMap<String, u64>,
    latency: Option<Histogram<u64>>,
}

impl Tally {
    /// Counts an end, and how long after publishing it came.
    pub(super) fn end(&mut self, end: &End, latency: Duration) {
        match end {
            End::Saved(saved) => {
                self.saved += 1;
                self.degraded += u64::from(saved.lacks().is_some());
            }
            End::Failed(failed) => {
                *self.failed.entry(timeline::clean(&failed.code, 64)).or_default() += 1;
            }
        }
        if self.latency.is_none() {
            self.latency = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.latency {
            histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Workflows that ended.
    pub(super) fn ended(&self) -> u64 {
        self.saved + self.failed.values().sum::<u64>()
    }

    /// What the command found out; `unfinished` workflows have no end yet. `waited` says whether ends were looked
    /// for at all.
    pub(super) fn summary(&self, elapsed: Duration, unfinished: u64, waited: bool) -> Summary {
        let count = if waited { self.ended() } else { self.published };
        let latency = self.latency.as_ref().map(|histogram| Latency {
            p50: millis(histogram.value_at_quantile(0.5)),
            p95: millis(histogram.value_at_quantile(0.95)),
        });
        Summary {
            lines: self.lines,
            published: self.published,
            duplicates: self.duplicates,
            bad_lines: self.bad,
            unpublished: self.unpublished,
            ends: waited.then(|| Ends {
                saved: self.saved,
                degraded: self.degraded,
                failed: self.failed.clone(),
                unfinished,
            }),
            elapsed_ms: millis(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)),
            workflows_per_second: per_second(count, elapsed),
            latency_ms: latency,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^52 microseconds are 142 years")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "nobody publishes 2^52 lines")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    let rate = count as f64 / elapsed.as_secs_f64().max(1e-6);
    (rate * 10.0).round() / 10.0
}

/// The last thing that the command prints.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    lines: u64,
    published: u64,
    duplicates: u64,
    bad_lines: u64,
    unpublished: u64,
    #[serde(flatten)]
    ends: Option<Ends>,
    elapsed_ms: f64,
    workflows_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Latency>,
}

#[derive(Debug, Serialize)]
struct Ends {
    saved: u64,
    #[serde(skip_serializing_if = "is_zero")]
    degraded: u64,
    failed: BTreeMap<String, u64>,
    unfinished: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// From publishing to the end, in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
}

impl Summary {
    /// Whether every line was published and, if it was waited for, every workflow saved.
    pub(super) fn is_good(&self) -> bool {
        self.bad_lines == 0
            && self.unpublished == 0
            && self.ends.as_ref().is_none_or(|ends| ends.failed.is_empty() && ends.unfinished == 0)
    }

    /// One JSON object, told from the lines before it by its only key, `summary`.
    pub(super) fn json(&self) -> String {
        serde_json::json!({ "summary": self }).to_string()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ms: f64| timeline::duration(Duration::from_secs_f64(ms / 1000.0));
        write!(f, "published  {} of {} lines", self.published, self.lines)?;
        for (n, what) in [
            (self.duplicates, "published before"),
            (self.bad_lines, "bad"),
            (self.unpublished, "not known to be published"),
        ] {
            if n > 0 {
                write!(f, ", {n} {what}")?;
            }
        }
        if let Some(ends) = &self.ends {
            write!(f, "\nended      {} saved", ends.saved)?;
            if ends.degraded > 0 {
                write!(f, " ({} without the data of a source that failed)", ends.degraded)?;
            }
            write!(f, ", {} failed", ends.failed.values().sum::<u64>())?;
            let codes: Vec<String> = ends.failed.iter().map(|(code, n)| format!("{code} {n}")).collect();
            if !codes.is_empty() {
                write!(f, " ({})", codes.join(", "))?;
            }
            if ends.unfinished > 0 {
                write!(f, ", {} unfinished", ends.unfinished)?;
            }
        }
        write!(f, "\ntime       {}, {} workflows/s", ms(self.elapsed_ms), self.workflows_per_second)?;
        if let Some(latency) = &self.latency_ms {
            write!(
                f,
                "\nlatency    p50 {}, p95 {}, from publishing to the end",
                ms(latency.p50),
                ms(latency.p95)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::client::{Failed, Saved};

    fn saved() -> End {
        let saved: Saved = serde_json::from_value(json!({"response": {"text": "hi"}})).unwrap();
        End::Saved(Box::new(saved))
    }

    fn failed(code: &str) -> End {
        End::Failed(Box::new(Failed {
            code: code.to_owned(),
            stage: "generation".to_owned(),
            message: "m".to_owned(),
            attempts: 1,
            retryable: false,
            may_have_happened: false,
        }))
    }

    #[test]
    fn the_summary_adds_up_for_people_and_for_scripts() {
        let mut tally = Tally { lines: 6, published: 5, duplicates: 1, bad: 1, ..Tally::default() };
        tally.end(&saved(), Duration::from_millis(10));
        tally.end(&saved(), Duration::from_millis(20));
        tally.end(&failed("rate_limited"), Duration::from_secs(3));
        let summary = tally.summary(Duration::from_secs(2), 1, true);
        assert!(!summary.is_good());
        let text = summary.to_string();
        assert!(text.contains("published  5 of 6 lines, 1 published before, 1 bad"), "{text}");
        assert!(text.contains("ended      2 saved, 1 failed (rate_limited 1), 1 unfinished"), "{text}");
        assert!(text.contains("1.5 workflows/s"), "{text}");
        let json: Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!(json["summary"]["failed"]["rate_limited"], 1);
        assert!((json["summary"]["latency_ms"]["p50"].as_f64().unwrap() - 20.0).abs() < 0.1);
    }

    #[test]
    fn without_waiting_there_is_nothing_to_say_of_ends() {
        let tally = Tally { lines: 2, published: 2, ..Tally::default() };
        let summary = tally.summary(Duration::from_secs(1), 0, false);
        assert!(summary.is_good());
        assert!(!summary.to_string().contains("ended"));
        assert!(!summary.json().contains("saved"));
    }
}
