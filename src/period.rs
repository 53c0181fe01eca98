//! Spans of time as people type them: `10m`, `2h`, `1d`, `1h30m`; and instants, which may be such a span ago.

use std::time::Duration;

use throughline_actors::ports::clock::Clock;
use throughline_schemas::Timestamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::system::SystemClock;

/// The longest span that makes sense; events are not kept longer.
const MAX_DAYS: u64 = 10 * 366;

/// The text is not a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a span of at most ten years; write it like 30s, 10m, 2h, 1d or 1h30m")]
pub(crate) struct SpanError(String);

/// Whole seconds, minutes, hours and days, in any number and order.
pub(crate) fn parse(text: &str) -> Result<Duration, SpanError> {
    let wrong = || SpanError(text.chars().take(40).collect());
    let mut rest = text.trim();
    let mut seconds: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let mut tail = rest[digits..].chars();
        let unit = match tail.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 60 * 60,
            Some('d') => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|n| seconds.checked_add(n)).ok_or_else(wrong)?;
        rest = tail.as_str();
    }
    if seconds > MAX_DAYS * 24 * 60 * 60 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

/// The text is not an instant, or two of them enclose nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// Neither a span nor an instant.
    #[error("{flag} {text:?} is neither a span (30s, 10m, 2h, 1d) nor an instant (2026-01-31T09:00:00Z)")]
    NotOne {
        /// Where it stands.
        flag: &'static str,
        /// What it is, or the beginning of it.
        text: String,
    },
    /// The end is not after the beginning.
    #[error("--until is not after --since")]
    Empty,
}

/// From when until before when something was stored; a missing end is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Period {
    /// The first instant that counts.
    pub(crate) since: Option<Timestamp>,
    /// The first that does not count any more.
    pub(crate) until: Option<Timestamp>,
}

impl Period {
    /// Reads `--since` and `--until`.
    pub(crate) fn new(since: Option<&str>, until: Option<&str>) -> Result<Self, WhenError> {
        let now = OffsetDateTime::from(SystemClock.now());
        let since = since.map(|text| when("--since", text, now)).transpose()?;
        let until = until.map(|text| when("--until", text, now)).transpose()?;
        if since.zip(until).is_some_and(|(since, until)| until <= since) {
            return Err(WhenError::Empty);
        }
        Ok(Self { since, until })
    }

    /// Whether something stored then counts.
    pub(crate) fn contains(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && !self.is_over(at)
    }

    /// Whether nothing that is stored from then on counts: a log is in the order of time.
    pub(crate) fn is_over(&self, at: Timestamp) -> bool {
        self.until.is_some_and(|until| at >= until)
    }
}

fn when(flag: &'static str, text: &str, now: OffsetDateTime) -> Result<Timestamp, WhenError> {
    if let Ok(span) = parse(text) {
        return Ok(Timestamp::from(now - span));
    }
    OffsetDateTime::parse(text.trim(), &Rfc3339)
        .map(Timestamp::from)
        .map_err(|_| WhenError::NotOne { flag, text: text.chars().take(40).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]
    use super::*;

    #[test]
    fn spans_are_read_and_everything_else_is_refused() {
        for (text, seconds) in
            [("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("1h30m", 5400), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in
            ["", "10", "m", "-5m", "1.5h", "10 m", "1w", "99999999999999999999s", "4000d", "5µs", "１m"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_period_takes_spans_and_instants_and_must_enclose_something() {
        let at = |text: &str| Timestamp::from(OffsetDateTime::parse(text, &Rfc3339).expect("an instant"));
        let period = Period::new(Some("2026-01-31T09:00:00Z"), Some("2026-01-31T10:00:00+01:00"));
        assert_eq!(period, Err(WhenError::Empty), "the same instant in another zone");
        let period = Period::new(Some("2026-01-31T09:00:00Z"), Some("2026-01-31T10:00:00Z")).expect("one");
        assert!(
            period.contains(at("2026-01-31T09:00:00Z")) && period.contains(at("2026-01-31T09:59:59.999Z"))
        );
        assert!(!period.contains(at("2026-01-31T08:59:59Z")) && !period.contains(at("2026-01-31T10:00:00Z")));
        assert!(period.is_over(at("2026-01-31T10:00:00Z")) && !period.is_over(at("2026-01-31T08:00:00Z")));
        assert!(Period::default().contains(at("2026-01-31T10:00:00Z")));
        assert_eq!(Period::new(Some("10m"), Some("1h")), Err(WhenError::Empty), "an hour ago is before");
        assert!(Period::new(Some("1h"), Some("10m")).is_ok());
        for bad in ["yesterday", "2026-01-31", ""] {
            let error = Period::new(None, Some(bad)).expect_err(bad);
            assert!(error.to_string().starts_with("--until") && error.to_string().contains("1d"), "{error}");
        }
    }
}
