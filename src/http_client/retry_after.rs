//! How long the other side asks to wait, or when it says that a limit is whole again: one reader for every form.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use regex::Regex;
use reqwest::header::HeaderMap;
use serde_json::Value;
use throughline_schemas::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// What a bare number counts.
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Headers that say how long to wait; the first that makes sense counts. The first are in milliseconds.
const HEADERS: [(&str, Duration); 5] = [
    ("retry-after-ms", MILLISECOND),
    ("x-ms-retry-after-ms", MILLISECOND),
    ("retry-after", SECOND),
    ("x-retry-after", SECOND),
    ("x-ratelimit-reset-after", SECOND),
];

/// How long an answer's headers ask to wait. What makes no sense (negative, not a number) counts as not said. Not capped.
pub(crate) fn from_headers(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    HEADERS.iter().find_map(|(name, unit)| {
        let said = headers.get_all(*name).iter().filter_map(|value| read(value.to_str().ok()?, *unit, now));
        said.max()
    })
}

/// Reads a number (of `unit`, or a moment in Unix time where it can be nothing else), a duration with units (`6m0s`,
/// `12ms`, `PT3S`), a date (RFC 3339, HTTP, RFC 2822), or a list of numbers, of which the largest counts. Of a date that
/// has passed, nothing is left to wait for.
pub(crate) fn read(text: &str, unit: Duration, now: Timestamp) -> Option<Duration> {
    let text = text.trim().trim_matches('"').trim();
    // RFC 9651 parameters: `3;w=60`.
    let text = text.split_once(';').map_or(text, |(before, _)| before.trim_end());
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number, unit, now);
    }
    let numbers: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    if let Some(numbers) = numbers {
        return numbers.into_iter().filter_map(|number| from_number(number, unit, now)).max();
    }
    from_units(text).or_else(|| from_iso(text)).or_else(|| until(text, now))
}

/// A number of a unit; seconds, milliseconds, microseconds or nanoseconds since 1970 if that is what it can only be. No
/// one waits for thirty years.
fn from_number(number: f64, unit: Duration, now: Timestamp) -> Option<Duration> {
    /// 2001; and where the next finer unit begins.
    const MOMENTS: [(f64, f64); 4] = [(1e9, 1.0), (1e12, 1e3), (1e15, 1e6), (1e18, 1e9)];
    /// Numbers up to a hundred times the first are of that unit: the year 5138.
    const SPAN: f64 = 100.0;
    let moment = MOMENTS.iter().find(|(first, _)| (*first..*first * SPAN).contains(&number));
    match moment {
        Some((_, per_second)) => {
            #[expect(clippy::cast_precision_loss, reason = "to the microsecond until the year 2255")]
            let now = now.unix_ms() as f64 / 1e3;
            Duration::try_from_secs_f64((number / per_second - now).max(0.0)).ok()
        }
        None => Duration::try_from_secs_f64(number * unit.as_secs_f64()).ok(),
    }
}

/// The time until a date; nothing if it has passed.
fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let now = OffsetDateTime::from(now);
    if let Ok(date) = httpdate::parse_http_date(date) {
        return Some(date.duration_since(SystemTime::from(now)).unwrap_or_default());
    }
    let date =
        OffsetDateTime::parse(date, &Rfc3339).or_else(|_| OffsetDateTime::parse(date, &Rfc2822)).ok()?;
    Some((date - now).try_into().unwrap_or_default())
}

/// A wait in a body: a number of this unit, or a text of a duration with units.
pub(crate) fn from_value(value: &Value, unit: Duration) -> Option<Duration> {
    match value {
        Value::Number(number) => Duration::try_from_secs_f64(number.as_f64()? * unit.as_secs_f64()).ok(),
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => Duration::try_from_secs_f64(number * unit.as_secs_f64()).ok(),
            Err(_) => from_units(text),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// "Please try again in 6.2s", "retry after 26 seconds", "wait 3 seconds before retrying", "resets in 1m30s".
static IN_WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = r"(?-u)\b(?:again|retry|retrying|wait|waiting|resets?|available|back off|after)(?: (?:in|for|after|at|least|about|approximately|another|again))*[ :~]{1,3}(\d[\d.]*\s?[a-z]+(?:,? ?(?:and )?\d[\d.]*\s?[a-z]+)*)";
    // A constant, which the tests try.
    Regex::new(pattern).ok()
});

/// Makes the pattern.
pub(crate) fn prepare() {
    LazyLock::force(&IN_WORDS);
}

/// The wait that a message asks for in words.
pub(crate) fn from_message(message: &str) -> Option<Duration> {
    let message = message.to_ascii_lowercase();
    IN_WORDS.as_ref()?.captures_iter(&message).find_map(|found| from_units(found.get(1)?.as_str()))
}

/// A leading duration with units, as Go and protobuf write it (`47s`, `1m30.5s`, `20ms`) or in words (`26 seconds`).
pub(crate) fn from_units(text: &str) -> Option<Duration> {
    let mut total: Option<Duration> = None;
    let mut rest = text.trim_start();
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start_matches(' ');
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit.to_ascii_lowercase().as_str() {
            "ns" => 1e-9,
            "us" => 1e-6,
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 1e-3,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return total,
        };
        let Ok(number) = number.parse::<f64>() else { return total };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = Some(total.unwrap_or_default().saturating_add(part));
        let next = after.trim_start_matches([' ', ',']);
        rest = next.strip_prefix("and ").unwrap_or(next);
    }
}

/// `PT1M30S`, `P1DT2H`.
fn from_iso(text: &str) -> Option<Duration> {
    let rest = text.strip_prefix(['P', 'p'])?;
    let (days, time) = rest.split_once(['T', 't']).unwrap_or((rest, ""));
    let part = |text: &str, units: &str| {
        let is_of = |c: char| c.is_ascii_digit() || c == '.' || units.contains(c.to_ascii_uppercase());
        text.chars().all(is_of).then_some(())
    };
    part(days, "D").and(part(time, "HMS"))?;
    from_units(&format!("{days}{time}"))
}

#[cfg(test)]
#[path = "retry_after_tests.rs"]
mod tests;
