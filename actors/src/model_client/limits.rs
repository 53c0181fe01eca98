//! Rate limits of one model: its own, its provider's, and what the provider announces.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use throughline_schemas::Usage;
use tokio::time::Instant;

use super::{AskError, RateLimits};
use crate::{
    policy::{
        announced::{Announced, Need, Ticket},
        bucket::{Bucket, Lot},
    },
    ports::model::Allowances,
};

/// Tokens that one request commonly needs, prompt and answer; see [`Bucket::of_lots`].
const COMMON_REQUEST: NonZeroU32 = NonZeroU32::MIN.saturating_add(8_000 - 1);

/// What was taken of one pair of buckets.
#[derive(Debug, Clone, Copy)]
struct Lots {
    requests: Option<Lot>,
    tokens: Option<Lot>,
}

/// What became of what was taken.
#[derive(Debug, Clone, Copy)]
enum Used {
    /// No request was sent.
    Nothing,
    /// One was, and the provider counted so many tokens.
    Tokens(u64),
    /// One was, or nobody knows.
    Unknown,
}

/// Limits that we set ourselves.
#[derive(Debug)]
pub(super) struct Buckets {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Buckets {
    pub(super) fn new(rates: RateLimits, now: Instant) -> Self {
        Self {
            requests: rates.requests_per_minute.map(|limit| Bucket::of_requests(limit, now)),
            tokens: rates.tokens_per_minute.map(|limit| Bucket::of_lots(limit, COMMON_REQUEST, now)),
        }
    }

    fn take(&mut self, tokens: u64, now: Instant) -> (Lots, Duration) {
        let requests = self.requests.as_mut().map(|bucket| bucket.take(1, now));
        let tokens = self.tokens.as_mut().map(|bucket| bucket.take(tokens, now));
        let waits = [&requests, &tokens].into_iter().flatten().map(|(_, wait)| *wait);
        let wait = waits.max().unwrap_or_default();
        (Lots { requests: requests.map(|(lot, _)| lot), tokens: tokens.map(|(lot, _)| lot) }, wait)
    }

    fn end(&mut self, lots: Lots, used: Used) {
        if let (Some(bucket), Some(lot)) = (&mut self.requests, lots.requests) {
            match used {
                Used::Nothing => bucket.correct(lot, 0),
                Used::Tokens(_) | Used::Unknown => bucket.keep(lot),
            }
        }
        if let (Some(bucket), Some(lot)) = (&mut self.tokens, lots.tokens) {
            match used {
                Used::Nothing => bucket.correct(lot, 0),
                Used::Tokens(tokens) => bucket.correct(lot, tokens),
                Used::Unknown => bucket.keep(lot),
            }
        }
    }

    fn too_large(&self, tokens: u64) -> Option<u32> {
        let limit = self.tokens.as_ref()?.limit().get();
        (tokens > u64::from(limit)).then_some(limit)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Limits {
    /// Shared by all models of the provider.
    provider: Arc<Mutex<Buckets>>,
    model: Mutex<Buckets>,
    announced: Mutex<Announced>,
}

/// Nothing panics while holding one of these; if it did, the numbers would still be numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limits {
    pub(super) fn new(provider: Arc<Mutex<Buckets>>, rates: RateLimits, now: Instant) -> Self {
        Self { provider, model: Mutex::new(Buckets::new(rates, now)), announced: Mutex::default() }
    }

    /// Whether the tokens of a request matter.
    pub(super) fn count_tokens(&self) -> bool {
        lock(&self.provider).tokens.is_some()
            || lock(&self.model).tokens.is_some()
            || lock(&self.announced).counts_tokens()
    }

    /// Takes a place for one request and waits until it may be used, no longer than `patience`.
    pub(super) async fn enter(&self, need: Need, patience: Duration) -> Result<Place<'_>, AskError> {
        let begun = Instant::now();
        let tokens = need.input.saturating_add(need.output);
        if let Some(limit) =
            lock(&self.provider).too_large(tokens).or_else(|| lock(&self.model).too_large(tokens))
        {
            return Err(AskError::OverRateLimit { tokens, limit });
        }
        let (provider, provider_wait) = lock(&self.provider).take(tokens, begun);
        let (model, model_wait) = lock(&self.model).take(tokens, begun);
        let ours = provider_wait.max(model_wait);
        // From here on, whoever is dropped while waiting gives the place back.
        let (used, waited) = (Used::Nothing, Duration::ZERO);
        let mut place = Place { limits: self, provider, model, ticket: None, used, waited };
        if ours > patience {
            return Err(AskError::OwnRateLimit(ours));
        }
        let turn = begun + ours;
        loop {
            let now = Instant::now();
            place.waited = now - begun;
            let wait = {
                let mut announced = lock(&self.announced);
                // The place in our own queue is kept while the provider is waited for.
                let wait = announced.wait(need, now).max(turn.saturating_duration_since(now));
                if wait.is_zero() {
                    place.ticket = Some(announced.take(need));
                }
                wait
            };
            if wait.is_zero() {
                return Ok(place);
            }
            if place.waited + wait > patience {
                return Err(AskError::OwnRateLimit(wait));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// Leave to make one call, as far as rate limits go. Dropped before the call begins, it is given back.
pub(super) struct Place<'a> {
    limits: &'a Limits,
    provider: Lots,
    model: Lots,
    ticket: Option<Ticket>,
    used: Used,
    waited: Duration,
}

impl Place<'_> {
    /// How long it was waited for.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// The call begins.
    pub(super) fn begin(&mut self) {
        self.used = Used::Unknown;
    }

    /// The call ended: without a request having been sent, or with one for which so many tokens were counted, if the
    /// provider says.
    pub(super) fn end(mut self, sent: bool, usage: Option<&Usage>, allowances: Option<&Allowances>) {
        self.used = match usage {
            _ if !sent => Used::Nothing,
            Some(usage) => Used::Tokens(usage.input_tokens.saturating_add(usage.output_tokens)),
            None => Used::Unknown,
        };
        if let (Some(ticket), Some(allowances)) = (self.ticket, allowances) {
            lock(&self.limits.announced).hear(ticket, allowances, Instant::now());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.limits.provider).end(self.provider, self.used);
        lock(&self.limits.model).end(self.model, self.used);
    }
}
