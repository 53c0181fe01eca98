//! Data sources, answering from a tape.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use async_trait::async_trait;
use throughline_schemas::{
    Document,
    event::external::{FailedCall, SourceResult, SourceStatus},
};
use tokio::time::Instant;

use super::{
    errors::{any_fetch, failed_fetch},
    tape::{Recording, Rules, with},
};
use crate::{
    dependency::Refused,
    policy::retry::RetryPolicy,
    ports::source::{FetchCall, FetchError, Sources},
};

/// URLs of one source in one record, at most: what a record says beyond that is not believed.
const MAX_URLS: usize = 1_000;

/// What became of the calls for one URL.
#[derive(Debug, Default)]
struct UrlScript {
    failed: VecDeque<FailedCall>,
    data: Option<Document>,
    /// Calls that failed or were prevented so far.
    missed: u32,
}

/// What distinguishes the requests to one source: URL, headers, body.
type Request = (String, Vec<(String, String)>, Option<String>);

fn request(call: &FetchCall) -> Request {
    (call.url.clone(), call.headers.clone(), call.body.clone())
}

/// What one source answered.
#[derive(Debug, Default)]
struct SourceScript {
    urls: Vec<UrlScript>,
    /// The requests that were made, in the order in which they were.
    asked: Vec<Request>,
    took: Duration,
    begun: Option<Instant>,
    /// When it is asked again, if it is configured.
    retry: Option<RetryPolicy>,
}

/// What each source answered, by name.
#[derive(Debug, Default)]
pub(super) struct SourceScripts(BTreeMap<String, SourceScript>);

impl SourceScripts {
    pub(super) fn of(external: &BTreeMap<String, SourceResult>, rules: &Rules) -> Self {
        let script = |(name, result): (&String, &SourceResult)| {
            let rule = rules.sources.get(name);
            let script = SourceScript::of(result, rule.is_some_and(|rule| rule.several));
            (name.clone(), SourceScript { retry: rule.map(|rule| rule.retry), ..script })
        };
        Self(external.iter().map(script).collect())
    }

    /// Whether a source let the next call be made, and the random bits for the wait if it did not.
    pub(super) fn admit(&mut self, source: &str) -> Result<(), (Refused, u64)> {
        let Some(script) = self.0.get_mut(source) else { return Ok(()) };
        // Where a source is asked for several URLs at once, it is not known for which of them a permit is asked.
        for url in &mut script.urls {
            let Some(failed) = url.failed.front() else { continue };
            let Some(refused) = refusal(failed) else { continue };
            url.missed += 1;
            let random = random(script.retry, url.missed, failed);
            url.failed.pop_front();
            return Err((refused, random));
        }
        Ok(())
    }

    fn fetch(&mut self, call: &FetchCall) -> Fetched {
        let unrecorded = Fetched { result: Err(unrecorded()), took: Duration::ZERO, random: 0 };
        let Some(script) = self.0.get_mut(&call.source) else { return unrecorded };
        let begun = *script.begun.get_or_insert_with(Instant::now);
        let made = request(call);
        let asked = script.asked.iter().position(|asked| *asked == made);
        let index = asked.unwrap_or_else(|| {
            script.asked.push(made);
            script.asked.len() - 1
        });
        let Some(url) = script.urls.get_mut(index) else { return unrecorded };
        if let Some(failed) = url.failed.pop_front() {
            url.missed += 1;
            let random = random(script.retry, url.missed, &failed);
            return match failed_fetch(&failed, call) {
                Ok(error) => Fetched { result: Err(error), took: failed.duration_ms.duration(), random },
                Err(_) => unrecorded,
            };
        }
        let took = script.took.saturating_sub(begun.elapsed());
        url.data.clone().map_or(unrecorded, |data| Fetched { result: Ok(data), took, random: 0 })
    }
}

struct Fetched {
    result: Result<Document, FetchError>,
    took: Duration,
    random: u64,
}

/// Random bits that lead to the wait that followed a failed call: those that are on record, else what comes nearest, if
/// the policy can come to that wait.
fn random(retry: Option<RetryPolicy>, made: u32, failed: &FailedCall) -> u64 {
    if let Some(jitter) = failed.jitter {
        return RetryPolicy::random_with(jitter);
    }
    let Some(retry) = retry else { return 0 };
    // Half a millisecond more, because the rest of it was cut off. A wait that was not waited was too long.
    let wait = |ms| retry.random_for(made, Duration::from_millis(ms) + Duration::from_micros(500));
    failed.retry_in_ms.map_or(u64::MAX, wait)
}

impl SourceScript {
    /// `several`: it may be asked for several URLs, and answers with an array of what they answered.
    fn of(result: &SourceResult, several: bool) -> Self {
        let mut urls: Vec<UrlScript> = Vec::new();
        for failed in &result.failed_calls {
            let index = usize::try_from(failed.url).unwrap_or(usize::MAX).min(MAX_URLS);
            if urls.len() <= index {
                urls.resize_with(index + 1, UrlScript::default);
            }
            urls[index].failed.push_back(failed.clone());
        }
        let mut answers = match (&result.data, result.status) {
            (_, SourceStatus::Skipped) | (None, _) => VecDeque::new(),
            (Some(data), _) => match data.items().filter(|_| several) {
                Some(items) => items.into(),
                None => VecDeque::from([data.clone()]),
            },
        };
        // They belong, in their order, to the URLs whose last call did not fail for good.
        for url in &mut urls {
            if url.failed.back().is_none_or(|last| last.retry_in_ms.is_some()) {
                url.data = answers.pop_front();
            }
        }
        urls.extend(answers.into_iter().map(|data| UrlScript { data: Some(data), ..UrlScript::default() }));
        Self { urls, took: result.duration_ms.duration(), ..Self::default() }
    }
}

/// A call that was prevented.
fn refusal(failed: &FailedCall) -> Option<Refused> {
    // Which limits the call has does not matter.
    failed_fetch(failed, &any_fetch()).err()
}

#[async_trait]
impl Sources for Recording {
    async fn fetch(&self, call: &FetchCall) -> Result<Document, FetchError> {
        let fetched = with(|tape| Some((tape.sources.fetch(call), tape.takes_no_time)));
        let Some((Fetched { result, took, random }, takes_no_time)) = fetched else {
            return Err(unrecorded());
        };
        if !takes_no_time {
            tokio::time::sleep(took).await;
        }
        // Nothing comes between here and the decision about the next call.
        with(|tape| tape.random = random);
        result
    }
}

fn unrecorded() -> FetchError {
    FetchError::Misconfigured("there is no answer of it on record".to_owned())
}
