#![allow(clippy::unwrap_used)]

use super::*;

/// 2026-11-30T12:00:00Z
const NOW: i64 = 1_796_040_000_000;

fn headers(pairs: &[(&'static str, &str)]) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    from_headers(&headers, Timestamp::from_unix_ms(NOW))
}

#[test]
fn seconds_and_milliseconds() {
    assert_eq!(headers(&[("retry-after", "9")]), Some(Duration::from_secs(9)));
    assert_eq!(headers(&[("retry-after", " 0.25 ")]), Some(Duration::from_millis(250)));
    assert_eq!(headers(&[("retry-after-ms", "1500")]), Some(Duration::from_millis(1500)));
    assert_eq!(headers(&[("x-ms-retry-after-ms", "20")]), Some(Duration::from_millis(20)));
    assert_eq!(
        headers(&[("retry-after", "9"), ("retry-after-ms", "20.5")]),
        Some(Duration::from_micros(20_500))
    );
    assert_eq!(headers(&[("retry-after", "9"), ("retry-after-ms", "soon")]), Some(Duration::from_secs(9)));
    assert_eq!(headers(&[("retry-after", "0")]), Some(Duration::ZERO));
    assert_eq!(headers(&[]), None);
}

#[test]
fn every_form_of_a_wait() {
    for three in [
        "3",
        "3s",
        "3.0",
        "\"3\"",
        "3 seconds",
        "3000ms",
        "0m3s",
        "PT3S",
        "1, 3",
        "3, 3",
        "3;w=60",
        "2026-11-30T12:00:03Z",
        "2026-11-30T14:00:03+02:00",
        "Mon, 30 Nov 2026 12:00:03 GMT",
        "Mon, 30 Nov 2026 14:00:03 +0200",
        "1796040003",
        "1796040003000",
        "1796040003.0",
        "1796040003000000",
    ] {
        assert_eq!(headers(&[("retry-after", three)]), Some(Duration::from_secs(3)), "{three}");
    }
    assert_eq!(headers(&[("retry-after", "3"), ("retry-after", "5")]), Some(Duration::from_secs(5)));
    assert_eq!(headers(&[("retry-after", "P1DT2H")]), Some(Duration::from_hours(26)));
    for passed in ["Mon, 30 Nov 2026 11:00:00 GMT", "1796039999", "2001-01-01T00:00:00Z"] {
        assert_eq!(headers(&[("retry-after", passed)]), Some(Duration::ZERO), "{passed}");
    }
}

#[test]
fn all_three_forms_of_an_http_date() {
    for date in
        ["Mon, 30 Nov 2026 12:01:00 GMT", "Monday, 30-Nov-26 12:01:00 GMT", "Mon Nov 30 12:01:00 2026"]
    {
        assert_eq!(headers(&[("retry-after", date)]), Some(Duration::from_mins(1)), "{date}");
    }
}

#[test]
fn nonsense_counts_as_not_said_and_nothing_overflows() {
    for value in [
        "-1",
        "NaN",
        "inf",
        "1e400",
        "",
        "soon",
        "P",
        "PT",
        "T3S",
        "3 apples",
        "Sun, 99 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(headers(&[("retry-after", value)]), None, "{value}");
    }
    for value in ["9223372036854775807", "18446744073709551615", "1e19", "99999999999999999999999999999s"] {
        let _any = headers(&[("retry-after", value)]);
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
        ("Please wait 3 seconds before retrying", Some(3_000)),
        ("wait for 2 minutes and 5 seconds", Some(125_000)),
        ("The limit resets in 1m5s", Some(65_000)),
        ("Retry after: 4s", Some(4_000)),
        ("Please try again in a moment", None),
        ("try again in 5", None),
        ("try again in 1.2.3s", None),
        ("You sent 5 messages after 3 hours", Some(10_800_000)),
        ("maximum context length is 4096 tokens", None),
        ("Gerät überlastet, retry after 2 h", Some(7_200_000)),
        ("", None),
    ];
    for (message, expected) in cases {
        assert_eq!(from_message(message), expected.map(Duration::from_millis), "{message}");
    }
}
