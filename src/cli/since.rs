//! Spans of time as people type them: `10m`, `2h`, `1d`, `1h30m`.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
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
}
