//! What an answer's headers say besides the answer.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::HeaderMap;
use throughline_actors::ports::model::{Allowance, Allowances, CallFacts};
use throughline_schemas::Timestamp;

use crate::http_client::credential::Redactor;
use crate::http_client::{retry_after, text};

/// Longest request id that is kept, in characters.
const MAX_REQUEST_ID_CHARS: usize = 128;
/// Where providers put the id of a request: `OpenAI` and its kin, Anthropic, Azure.
const REQUEST_IDS: [&str; 3] = ["x-request-id", "request-id", "apim-request-id"];

/// Everything that the headers say. `now` is for those that name a date.
pub(super) fn read(response: &Response, redactor: &Redactor, now: Timestamp) -> CallFacts {
    let headers = response.headers();
    CallFacts {
        http_status: Some(response.status().as_u16()),
        request_id: REQUEST_IDS.iter().find_map(|name| header(headers, name)).map(|id| {
            let mut id = id.to_owned();
            redactor.text(&mut id);
            text::one_line(&id, MAX_REQUEST_ID_CHARS)
        }),
        retry_after: retry_after::from_headers(headers, now),
        should_retry: header(headers, "x-should-retry").and_then(|word| word.parse().ok()),
        first_token: None,
        allowances: allowances(headers, now),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of `OpenAI` and its kin, and
/// `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`.
fn allowances(headers: &HeaderMap, now: Timestamp) -> Option<Box<Allowances>> {
    let of = |kind: &str| {
        let openai = Allowance::read(headers, now, |part| format!("x-ratelimit-{part}-{kind}"));
        let anthropic = |part: &str| format!("anthropic-ratelimit-{kind}-{part}");
        openai.or_else(|| Allowance::read(headers, now, anthropic)).unwrap_or_default()
    };
    let allowances = Allowances {
        requests: of("requests"),
        tokens: of("tokens"),
        input_tokens: of("input-tokens"),
        output_tokens: of("output-tokens"),
    };
    (allowances != Allowances::default()).then(|| Box::new(allowances))
}

/// Reading one limit's three headers.
trait Read: Sized {
    fn read(headers: &HeaderMap, now: Timestamp, name: impl Fn(&str) -> String) -> Option<Self>;
}

impl Read for Allowance {
    fn read(headers: &HeaderMap, now: Timestamp, name: impl Fn(&str) -> String) -> Option<Self> {
        let text = |part| header(headers, &name(part));
        // Azure sends -1 where it does not know, and 0 for a limit that it does not tell.
        let number = |part| text(part).and_then(|number| number.parse::<u64>().ok());
        let limit = number("limit").filter(|limit| *limit > 0);
        let allowance = Self {
            limit,
            remaining: number("remaining").filter(|remaining| *remaining > 0 || limit.is_some()),
            resets_in: text("reset").and_then(|reset| resets_in(reset, now)),
        };
        (allowance != Self::default()).then_some(allowance)
    }
}

/// A duration (`6m0s`, `12ms`), seconds as a number, or a date (RFC 3339), which may have passed.
fn resets_in(reset: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = reset.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    retry_after::from_units(reset).or_else(|| {
        let format = &time::format_description::well_known::Rfc3339;
        let date = time::OffsetDateTime::parse(reset, format).ok()?;
        Some((date - time::OffsetDateTime::from(now)).try_into().unwrap_or_default())
    })
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
}
