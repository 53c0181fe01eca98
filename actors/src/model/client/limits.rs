//! Rate limits of one model: its own, its provider's, and what the provider announces.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use throughline_schemas::Usage;
use tokio::{sync::Notify, time::Instant};

use super::{GenerationError, RateLimits};
use crate::{
    dependency::{HeldBack, Refused},
    policy::{
        announced::{Announced, Need, QuotaTicket},
        bucket::{Bucket, Reservation},
    },
    ports::model::Allowances,
};

/// Tokens that one request commonly needs, prompt and answer; see [`Bucket::of_lots`].
const COMMON_REQUEST: NonZeroU32 = NonZeroU32::MIN.saturating_add(8_000 - 1);

/// What was taken of one pair of buckets.
#[derive(Debug, Clone, Copy)]
struct Reservations {
    requests: Option<Reservation>,
    tokens: Option<Reservation>,
}

/// What became of what was taken.
#[derive(Debug, Clone, Copy)]
enum Used {
    /// No request was sent.
    Nothing,
    /// One was, and the provider counted so many tokens.
    Tokens(u64),
    /// One was, or that is not known.
    Unknown,
}

/// Limits that we set ourselves.
#[derive(Debug)]
struct Buckets {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
}

impl Buckets {
    fn new(rates: RateLimits, now: Instant) -> Self {
        Self {
            requests: rates.requests_per_minute.map(|limit| Bucket::of_requests(limit, now)),
            tokens: rates.tokens_per_minute.map(|limit| Bucket::of_lots(limit, COMMON_REQUEST, now)),
        }
    }

    fn join(&mut self, tokens: u64, now: Instant) -> Reservations {
        Reservations {
            requests: self.requests.as_mut().map(|bucket| bucket.join(1, now)),
            tokens: self.tokens.as_mut().map(|bucket| bucket.join(tokens, now)),
        }
    }

    /// Each bucket with its lot.
    fn each(&mut self, reservations: Reservations) -> impl Iterator<Item = (&mut Bucket, Reservation)> {
        let requests = self.requests.as_mut().zip(reservations.requests);
        requests.into_iter().chain(self.tokens.as_mut().zip(reservations.tokens))
    }

    fn wait(&mut self, reservations: Reservations, now: Instant) -> Duration {
        self.each(reservations)
            .map(|(bucket, reservation)| bucket.wait(reservation, now))
            .max()
            .unwrap_or_default()
    }

    fn take(&mut self, reservations: Reservations, now: Instant) {
        self.each(reservations).for_each(|(bucket, reservation)| bucket.take(reservation, now));
    }

    fn end(&mut self, reservations: Reservations, used: Used) {
        match used {
            Used::Nothing => {
                self.each(reservations).for_each(|(bucket, reservation)| bucket.leave(reservation));
            }
            Used::Unknown => {
                self.each(reservations).for_each(|(bucket, reservation)| bucket.keep(reservation));
            }
            Used::Tokens(tokens) => {
                if let (Some(bucket), Some(reservation)) = (&mut self.requests, reservations.requests) {
                    bucket.keep(reservation);
                }
                if let (Some(bucket), Some(reservation)) = (&mut self.tokens, reservations.tokens) {
                    bucket.correct(reservation, tokens);
                }
            }
        }
    }

    fn too_large(&self, tokens: u64) -> Option<u32> {
        let limit = self.tokens.as_ref()?.limit().get();
        (tokens > u64::from(limit)).then_some(limit)
    }
}

/// The limits of a provider, shared by all of its models.
#[derive(Debug)]
pub(super) struct ProviderLimits {
    buckets: Mutex<Buckets>,
    /// Told whenever those who wait may have to wait less.
    freed: Notify,
}

impl ProviderLimits {
    pub(super) fn new(rates: RateLimits, now: Instant) -> Self {
        Self { buckets: Mutex::new(Buckets::new(rates, now)), freed: Notify::new() }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Limits {
    provider: Arc<ProviderLimits>,
    model: Mutex<Buckets>,
    announced: Mutex<Announced>,
}

/// Nothing panics while holding one of these; if it did, the numbers would still be numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Limits {
    pub(super) fn new(provider: Arc<ProviderLimits>, rates: RateLimits, now: Instant) -> Self {
        Self { provider, model: Mutex::new(Buckets::new(rates, now)), announced: Mutex::default() }
    }

    /// Whether the tokens of a request matter.
    pub(super) fn count_tokens(&self) -> bool {
        lock(&self.provider.buckets).tokens.is_some()
            || lock(&self.model).tokens.is_some()
            || lock(&self.announced).counts_tokens()
    }

    /// A permit for one request that was held back, or for which there was no room, in another run. Takes nothing.
    pub(super) async fn enter_as_recorded(
        &self,
        need: Need,
        recorded: HeldBack,
    ) -> Result<RatePermit<'_>, RateDenied> {
        self.check(need)?;
        let HeldBack { waited, no_room } = recorded;
        tokio::time::sleep(waited).await;
        if let Some(wait) = no_room {
            return Err(RateDenied { waited, error: GenerationError::OwnRateLimit(wait) });
        }
        let nothing = Reservations { requests: None, tokens: None };
        Ok(RatePermit {
            limits: self,
            provider: nothing,
            model: nothing,
            ticket: None,
            used: Used::Nothing,
            waited,
        })
    }

    /// Refuses what is larger than a whole minute's limit.
    fn check(&self, need: Need) -> Result<u64, GenerationError> {
        let tokens = need.input.saturating_add(need.output);
        let limit =
            lock(&self.provider.buckets).too_large(tokens).or_else(|| lock(&self.model).too_large(tokens));
        limit.map_or(Ok(tokens), |limit| Err(GenerationError::OverRateLimit { tokens, limit }))
    }

    /// Takes a place in the queue for one request and waits until it may be sent, as far as patience goes. `paced` says how
    /// long the provider still asks all callers to wait; `report` gets the expected length of a wait that begins.
    pub(super) async fn enter(
        &self,
        need: Need,
        patience: RatePatience,
        paced: impl Fn() -> Duration + Send,
        report: impl Fn(Duration) + Send,
    ) -> Result<RatePermit<'_>, RateDenied> {
        let begun = Instant::now();
        let tokens = self.check(need)?;
        let provider = lock(&self.provider.buckets).join(tokens, begun);
        let model = lock(&self.model).join(tokens, begun);
        // From here on, a call that is dropped while waiting gives its place back.
        let (used, waited) = (Used::Nothing, Duration::ZERO);
        let mut permit = RatePermit { limits: self, provider, model, ticket: None, used, waited };
        loop {
            // Hears of everything from here on, so that nothing is missed between looking and waiting.
            let freed = self.provider.freed.notified();
            let now = Instant::now();
            permit.waited = now - begun;
            let asked = paced();
            let wait = self.turn(&mut permit, need, now, asked);
            if wait.is_zero() {
                return Ok(permit);
            }
            let waited = permit.waited;
            let (gives_up, wait_now) = match patience {
                RatePatience::Expecting(limit) => (waited.saturating_add(wait) > limit, wait),
                RatePatience::Waiting(limit) => (waited >= limit, wait.min(limit.saturating_sub(waited))),
            };
            if gives_up {
                let error = if asked < wait {
                    GenerationError::OwnRateLimit(wait)
                } else {
                    Refused::Paced(asked).into()
                };
                return Err(RateDenied { waited, error });
            }
            report(wait);
            tokio::select! {
                () = tokio::time::sleep(wait_now) => {}
                () = freed => {}
            }
        }
    }

    /// How long to wait still; if no longer, takes what is needed of every limit.
    fn turn(&self, permit: &mut RatePermit<'_>, need: Need, now: Instant, asked: Duration) -> Duration {
        // Always in this order.
        let mut provider = lock(&self.provider.buckets);
        let mut model = lock(&self.model);
        let mut announced = lock(&self.announced);
        let ours = provider.wait(permit.provider, now).max(model.wait(permit.model, now));
        let wait = ours.max(announced.wait(need, now)).max(asked);
        if wait.is_zero() {
            provider.take(permit.provider, now);
            model.take(permit.model, now);
            permit.ticket = Some(announced.take(need));
        }
        wait
    }
}

/// How long a call may be held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RatePatience {
    /// For so long; it gives up as soon as it is expected to take longer, because there is something else to do.
    Expecting(Duration),
    /// For so long. Expectations are not heeded: of the tokens that those before it have reserved most may come back.
    Waiting(Duration),
}

/// No leave to make one call: rate limits have no room for it in time, or at all.
#[derive(Debug)]
pub(super) struct RateDenied {
    /// How long it was waited for all the same.
    pub(super) waited: Duration,
    pub(super) error: GenerationError,
}

impl From<GenerationError> for RateDenied {
    fn from(error: GenerationError) -> Self {
        Self { waited: Duration::ZERO, error }
    }
}

/// Leave to make one call, as far as rate limits go. Dropped before the call begins, it is given back.
pub(super) struct RatePermit<'a> {
    limits: &'a Limits,
    provider: Reservations,
    model: Reservations,
    ticket: Option<QuotaTicket>,
    used: Used,
    waited: Duration,
}

impl RatePermit<'_> {
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
            lock(&self.limits.announced).update(ticket, allowances, Instant::now());
        }
    }
}

impl Drop for RatePermit<'_> {
    fn drop(&mut self) {
        lock(&self.limits.provider.buckets).end(self.provider, self.used);
        lock(&self.limits.model).end(self.model, self.used);
        match self.used {
            Used::Nothing | Used::Tokens(_) => self.limits.provider.freed.notify_waiters(),
            Used::Unknown => {}
        }
    }
}
