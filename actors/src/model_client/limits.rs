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
        bucket::Bucket,
    },
    ports::model::Allowances,
};

/// Tokens that one request commonly needs, prompt and answer; see [`Bucket::of_lots`].
const COMMON_REQUEST: NonZeroU32 = NonZeroU32::MIN.saturating_add(8_000 - 1);

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

    fn take(&mut self, tokens: u64, now: Instant) -> Duration {
        let requests = self.requests.as_mut().map_or(Duration::ZERO, |bucket| bucket.take(1, now));
        requests.max(self.tokens.as_mut().map_or(Duration::ZERO, |bucket| bucket.take(tokens, now)))
    }

    /// What was taken was not used at all.
    fn give_back(&mut self, tokens: u64) {
        if let Some(requests) = &mut self.requests {
            requests.give_back(1);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.give_back(tokens);
        }
    }

    /// Another number of tokens was used than was taken.
    fn correct(&mut self, taken: u64, used: u64, now: Instant) {
        let Some(bucket) = &mut self.tokens else { return };
        if used < taken {
            bucket.give_back(taken - used);
        } else {
            bucket.owe(used - taken, now);
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
        let ours = lock(&self.provider).take(tokens, begun).max(lock(&self.model).take(tokens, begun));
        // From here on, whoever is dropped while waiting gives the place back.
        let mut place = Place { limits: self, need, ticket: None, begun: false, waited: Duration::ZERO };
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
    need: Need,
    ticket: Option<Ticket>,
    /// Whether the call has begun: from then on, dropping it gives nothing back.
    begun: bool,
    waited: Duration,
}

impl Place<'_> {
    /// How long it was waited for.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    /// The call begins.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// The call ended: without a request having been sent, or with one for which so many tokens were counted, if the
    /// provider says.
    pub(super) fn end(mut self, sent: bool, usage: Option<&Usage>, allowances: Option<&Allowances>) {
        self.begun = sent;
        if !sent {
            return;
        }
        let now = Instant::now();
        if let Some(usage) = usage {
            let taken = self.tokens();
            let used = usage.input_tokens.saturating_add(usage.output_tokens);
            lock(&self.limits.provider).correct(taken, used, now);
            lock(&self.limits.model).correct(taken, used, now);
        }
        if let (Some(ticket), Some(allowances)) = (self.ticket, allowances) {
            lock(&self.limits.announced).hear(ticket, allowances, now);
        }
    }

    fn tokens(&self) -> u64 {
        self.need.input.saturating_add(self.need.output)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.begun {
            lock(&self.limits.provider).give_back(self.tokens());
            lock(&self.limits.model).give_back(self.tokens());
        }
    }
}
