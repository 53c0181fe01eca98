//! How long the other side asks to wait.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use throughline_schemas::Timestamp;

/// `retry-after-ms`, else `Retry-After` as seconds (with a fraction, as some send it) or as an HTTP date, relative to
/// `now`. What makes no sense (negative, not a number) counts as not said. Not capped.
pub(crate) fn from_headers(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let ms = text("retry-after-ms").and_then(|ms| ms.parse::<f64>().ok());
    ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok()).or_else(|| {
        let value = text(RETRY_AFTER.as_str())?;
        match value.parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
            Err(_) => until(value, now),
        }
    })
}

/// The time until an HTTP date; nothing if it has passed.
fn until(date: &str, now: Timestamp) -> Option<Duration> {
    let date = httpdate::parse_http_date(date).ok()?;
    let now = SystemTime::from(time::OffsetDateTime::from(now));
    Some(date.duration_since(now).unwrap_or_default())
}

/// What stands before the wait in the messages of `OpenAI`, Azure and Gemini.
const PHRASES: [&str; 3] = ["try again in ", "retry in ", "retry after "];

/// The wait that a message asks for in words: "Please try again in 6.2s", "Please retry after 26 seconds".
pub(crate) fn from_message(message: &str) -> Option<Duration> {
    // ASCII only, so that positions stay the same.
    let message = message.to_ascii_lowercase();
    PHRASES.iter().find_map(|phrase| from_units(message.split_once(phrase)?.1))
}

/// A leading duration with units, as Go and protobuf write it (`47s`, `1m30.5s`, `20ms`) or in words (`26 seconds`).
pub(crate) fn from_units(text: &str) -> Option<Duration> {
    let mut total: Option<Duration> = None;
    let mut rest = text;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start_matches(' ');
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            _ => return total,
        };
        let Ok(number) = number.parse::<f64>() else { return total };
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        total = Some(total.unwrap_or_default().saturating_add(part));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// 1994-11-06T08:49:37Z
    const NOW: i64 = 784_111_777_000;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Option<Duration> {
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        from_headers(&headers, Timestamp::from_unix_ms(NOW))
    }

    #[test]
    fn seconds_and_milliseconds() {
        assert_eq!(headers(&[("retry-after", "9")]), Some(Duration::from_secs(9)));
        assert_eq!(headers(&[("retry-after", " 0.25 ")]), Some(Duration::from_millis(250)));
        assert_eq!(headers(&[("retry-after-ms", "1500")]), Some(Duration::from_millis(1500)));
        assert_eq!(
            headers(&[("retry-after", "9"), ("retry-after-ms", "20.5")]),
            Some(Duration::from_micros(20_500))
        );
        assert_eq!(
            headers(&[("retry-after", "9"), ("retry-after-ms", "soon")]),
            Some(Duration::from_secs(9))
        );
        assert_eq!(headers(&[("retry-after", "0")]), Some(Duration::ZERO));
        assert_eq!(headers(&[]), None);
    }

    #[test]
    fn all_three_forms_of_an_http_date() {
        for date in
            ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"]
        {
            assert_eq!(headers(&[("retry-after", date)]), Some(Duration::from_mins(1)), "{date}");
        }
        assert_eq!(headers(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(Duration::ZERO));
    }

    #[test]
    fn nonsense_counts_as_not_said() {
        for value in ["-1", "NaN", "inf", "1e400", "", "soon", "6m0s", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(headers(&[("retry-after", value)]), None, "{value}");
        }
    }

    #[test]
    fn the_wait_in_a_message() {
        let cases = [
            ("Rate limit reached. Please try again in 6.2s. Visit", Some(6_200)),
            ("Please try again in 20ms.", Some(20)),
            ("please Try Again In 1m30s", Some(90_000)),
            ("Please retry after 26 seconds.", Some(26_000)),
            ("Please retry in 47.301s.", Some(47_301)),
            ("Please try again in a moment", None),
            ("try again in 5", None),
            ("try again in 1.2.3s", None),
            ("Gerät überlastet, retry after 2 h", Some(7_200_000)),
            ("", None),
        ];
        for (message, expected) in cases {
            assert_eq!(from_message(message), expected.map(Duration::from_millis), "{message}");
        }
    }
}
