//! What an answer's headers say besides the answer.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use throughline_actors::ports::model::{Allowance, Allowances, CallFacts};
use throughline_schemas::Timestamp;

use crate::http_client::credential::Redactor;
use crate::http_client::{retry_after, text};

/// Longest request id that is kept, in characters.
const MAX_REQUEST_ID_CHARS: usize = 128;
/// Where providers put the id of a request: `OpenAI` and its kin, Anthropic, Azure.
const REQUEST_IDS: [&str; 3] = ["x-request-id", "request-id", "apim-request-id"];

/// A reset that is farther away is none that anybody waits for: "never", or another count than it seems to be.
const LONGEST_RESET: Duration = Duration::from_hours(24);

/// Everything that the headers say. `now` is for those that name a date.
pub(super) fn read(response: &Response, redactor: &Redactor, now: Timestamp) -> CallFacts {
    of(response.headers(), response.status(), redactor, now)
}

/// The same of an answer that has this status.
pub(super) fn of(headers: &HeaderMap, status: StatusCode, redactor: &Redactor, now: Timestamp) -> CallFacts {
    let mut retry_after = retry_after::from_headers(headers, now);
    let mut allowances = allowances(headers, now);
    let is_paced = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    for allowance in allowances.iter_mut().flat_map(|all| all.each_mut()).filter(|_| is_paced) {
        match (allowance.remaining, allowance.resets_in) {
            // A limit of which it is only said when it is whole again.
            (None, Some(reset)) => retry_after = retry_after.or(Some(reset)),
            // One of which it is not said when: as long as the refusal itself asks to wait.
            (Some(0), None) => allowance.resets_in = retry_after,
            (Some(_) | None, _) => {}
        }
    }
    CallFacts {
        http_status: Some(status.as_u16()),
        request_id: REQUEST_IDS.iter().find_map(|name| header(headers, name)).map(|id| {
            let mut id = id.to_owned();
            redactor.text(&mut id);
            text::one_line(&id, MAX_REQUEST_ID_CHARS)
        }),
        retry_after,
        should_retry: header(headers, "x-should-retry").and_then(|word| word.parse().ok()),
        allowances,
        ..CallFacts::default()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of `OpenAI` and its kin (some with the period behind it),
/// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`, and of requests what
/// routers and gateways say of all: `x-ratelimit-{limit,remaining,reset}`, `ratelimit-{limit,remaining,reset}`.
fn allowances(headers: &HeaderMap, now: Timestamp) -> Option<Box<Allowances>> {
    let read = |name: &dyn Fn(&str) -> String| allowance(headers, now, name);
    let of = |kind: &str| {
        read(&|part| format!("x-ratelimit-{part}-{kind}"))
            .or_else(|| read(&|part| format!("anthropic-ratelimit-{kind}-{part}")))
            .or_else(|| read(&|part| format!("x-ratelimit-{part}-{kind}-minute")))
    };
    let of_all = || {
        ["x-ratelimit", "ratelimit", "x-rate-limit"]
            .iter()
            .find_map(|prefix| read(&|part| format!("{prefix}-{part}")))
    };
    let allowances = Allowances {
        requests: of("requests").or_else(of_all).or_else(|| in_one(headers, now)).unwrap_or_default(),
        tokens: of("tokens").unwrap_or_default(),
        input_tokens: of("input-tokens").unwrap_or_default(),
        output_tokens: of("output-tokens").unwrap_or_default(),
    };
    (allowances != Allowances::default()).then(|| Box::new(allowances))
}

/// The drafts of the IETF: `RateLimit: limit=100, remaining=0, reset=3`, and `RateLimit: "default";r=0;t=3`.
fn in_one(headers: &HeaderMap, now: Timestamp) -> Option<Allowance> {
    let said = header(headers, "ratelimit")?;
    let value = |names: [&str; 2]| {
        let mut pairs = said.split([',', ';']).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| names.contains(name)).map(|(_, value)| value.trim())
    };
    let number = |names| value(names).and_then(|number| number.parse::<u64>().ok());
    let allowance = Allowance {
        limit: number(["limit", "q"]),
        remaining: number(["remaining", "r"]),
        resets_in: value(["reset", "t"]).and_then(|reset| resets_in(reset, None, now)),
    };
    (allowance != Allowance::default()).then_some(allowance)
}

/// One limit's headers.
fn allowance(headers: &HeaderMap, now: Timestamp, name: &dyn Fn(&str) -> String) -> Option<Allowance> {
    let text = |part| header(headers, &name(part));
    // Azure sends -1 where it does not know, and 0 for a limit that it does not tell.
    let number = |part| text(part).and_then(|number| number.parse::<u64>().ok());
    let limit = number("limit").filter(|limit| *limit > 0);
    let period = text("renewalperiod").and_then(|period| period.parse::<f64>().ok());
    let allowance = Allowance {
        limit,
        remaining: number("remaining").filter(|remaining| *remaining > 0 || limit.is_some()),
        resets_in: text("reset").and_then(|reset| resets_in(reset, period, now)),
    };
    (allowance != Allowance::default()).then_some(allowance)
}

/// When the limit is whole again. Where the provider names the period in which that happens, in seconds (Azure), a larger
/// number counts milliseconds.
fn resets_in(reset: &str, period: Option<f64>, now: Timestamp) -> Option<Duration> {
    let number = reset.parse::<f64>().ok();
    let in_milliseconds = number.zip(period).is_some_and(|(number, period)| number > period);
    let unit = if in_milliseconds { Duration::from_millis(1) } else { Duration::from_secs(1) };
    let reset = retry_after::read(reset, unit, now)?;
    let reset = match period.and_then(|period| Duration::try_from_secs_f64(period).ok()) {
        Some(period) if number.is_some() => reset.min(period),
        Some(_) | None => reset,
    };
    (reset <= LONGEST_RESET).then_some(reset)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(pairs: &[(&'static str, &'static str)]) -> Option<Box<Allowances>> {
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        // 1994-11-06T08:49:37Z
        allowances(&headers, Timestamp::from_unix_ms(784_111_777_000))
    }

    fn allowance(limit: Option<u64>, remaining: Option<u64>, seconds: Option<f64>) -> Allowance {
        Allowance { limit, remaining, resets_in: seconds.map(Duration::from_secs_f64) }
    }

    #[test]
    fn openai_counts_requests_and_tokens() {
        let told = read(&[
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "6m0s"),
            ("x-ratelimit-limit-tokens", "200000"),
            ("x-ratelimit-remaining-tokens", "199958"),
            ("x-ratelimit-reset-tokens", "12ms"),
        ]);
        let told = told.unwrap();
        assert_eq!(told.requests, allowance(Some(10_000), Some(0), Some(360.0)));
        assert_eq!(told.tokens, allowance(Some(200_000), Some(199_958), Some(0.012)));
        assert_eq!((told.input_tokens, told.output_tokens), Default::default());
    }

    #[test]
    fn anthropic_counts_both_sides_apart_and_names_dates() {
        let told = read(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "1994-11-06T08:50:37Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "30000"),
            ("anthropic-ratelimit-output-tokens-limit", "8000"),
            ("anthropic-ratelimit-output-tokens-reset", "1994-11-06T08:00:00+00:00"),
        ]);
        let told = told.unwrap();
        assert_eq!(told.requests, allowance(Some(50), Some(49), Some(60.0)));
        assert_eq!(told.input_tokens, allowance(None, Some(30_000), None));
        assert_eq!(told.output_tokens, allowance(Some(8_000), None, Some(0.0)));
    }

    #[test]
    fn azure_does_not_always_know() {
        assert_eq!(read(&[]), None);
        let unknown = [("x-ratelimit-limit-requests", "-1"), ("x-ratelimit-remaining-requests", "-1")];
        assert_eq!(read(&unknown), None);
        let zero = [("x-ratelimit-limit-tokens", "0"), ("x-ratelimit-remaining-tokens", "0")];
        assert_eq!(read(&zero), None);
        let odd = [("x-ratelimit-reset-tokens", "soon"), ("x-ratelimit-limit-tokens", "many")];
        assert_eq!(read(&odd), None);
    }

    #[test]
    fn a_number_is_read_as_what_it_can_only_be() {
        // 2026-11-30T12:00:00Z
        let now = Timestamp::from_unix_ms(1_796_040_000_000);
        let reset =
            |reset: &str, period: Option<f64>| resets_in(reset, period, now).map(|wait| wait.as_secs_f64());
        assert_eq!(reset("9", None), Some(9.0));
        assert_eq!(reset("1796040003", None), Some(3.0));
        assert_eq!(reset("1796040003000", None), Some(3.0));
        assert_eq!(reset("1796040003000", Some(60.0)), Some(3.0));
        assert_eq!(reset("500", Some(60.0)), Some(0.5));
        assert_eq!(reset("60000", Some(60.0)), Some(60.0));
        assert_eq!(reset("500ms", Some(60.0)), Some(0.5));
        assert_eq!(reset("45", Some(60.0)), Some(45.0));
        for never in [
            "1e19",
            "18446744073709551615",
            "9223372036854775807",
            "2099-01-01T00:00:00Z",
            "99999999",
            "-1",
            "NaN",
        ] {
            assert_eq!(reset(never, None), None, "{never}");
        }
    }

    #[test]
    fn the_drafts_of_one_header_are_read() {
        for header in ["limit=20, remaining=0, reset=7", "\"default\";q=20;r=0;t=7"] {
            let told = read(&[("ratelimit", header)]).unwrap();
            assert_eq!(told.requests, allowance(Some(20), Some(0), Some(7.0)), "{header}");
        }
        assert_eq!(read(&[("ratelimit", "soon")]), None);
    }

    #[test]
    fn what_routers_say_of_all_requests_counts_for_requests() {
        for prefix in ["x-ratelimit", "ratelimit", "x-rate-limit"] {
            let name = |part: &str| -> &'static str { format!("{prefix}-{part}").leak() };
            let told =
                read(&[(name("limit"), "20"), (name("remaining"), "0"), (name("reset"), "7")]).unwrap();
            assert_eq!(told.requests, allowance(Some(20), Some(0), Some(7.0)), "{prefix}");
        }
    }
}
