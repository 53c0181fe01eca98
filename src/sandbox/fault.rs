//! Making a stand-in fail on purpose.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ledger::Endpoint;

/// Faults that may wait behind each other for one target.
const MAX_FAULTS_PER_TARGET: usize = 64;
/// The longest delay that a fault may ask for, in milliseconds.
const MAX_FAULT_DELAY_MS: u64 = 600_000;

/// Which stand-in a [`Fault`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultTarget {
    /// The model, in every protocol
    Model,
    /// `/orders/{order_id}` and `/customers/{user_id}/orders`
    Orders,
    /// `/customers/{user_id}`
    Customers,
    /// `/products/{product_id}`
    Products,
}

impl FaultTarget {
    const COUNT: usize = 4;

    fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Model => Self::Model,
            Endpoint::Customers => Self::Customers,
            Endpoint::CustomerOrders | Endpoint::Orders => Self::Orders,
            Endpoint::Products => Self::Products,
        }
    }
}

/// What a stand-in does instead of answering well.
///
/// Faults of one target are used in the order they were set. One without `remaining` lasts until the next one is
/// set or until faults are cleared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which stand-in.
    pub target: FaultTarget,
    /// The HTTP status to answer with, 200 to 599. `None` lets the usual answer through, which makes a fault
    /// that only delays or cuts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers to add, such as `retry-after`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// How long to wait before answering, in milliseconds, at most ten minutes.
    #[serde(default)]
    pub delay_ms: u64,
    /// How many requests this is for; `None` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    /// The body to answer with: a string is sent as it is, anything else as JSON. `None` with a `status` is a
    /// fitting error body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Drop the connection in the middle of the body.
    #[serde(default)]
    pub cut: bool,
}

impl Fault {
    /// Answers `status` for every request until cleared.
    pub fn status(target: FaultTarget, status: u16) -> Self {
        Self { status: Some(status), ..Self::none(target) }
    }

    /// Answers well, but only after `delay`, for every request until cleared.
    pub fn delay(target: FaultTarget, delay: Duration) -> Self {
        Self { delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), ..Self::none(target) }
    }

    /// Answers well but drops the connection half-way through the body, for every request until cleared.
    pub fn cut(target: FaultTarget) -> Self {
        Self { cut: true, ..Self::none(target) }
    }

    fn none(target: FaultTarget) -> Self {
        Self {
            target,
            status: None,
            headers: BTreeMap::new(),
            delay_ms: 0,
            remaining: None,
            body: None,
            cut: false,
        }
    }

    /// The same fault for the next `requests` requests only.
    #[must_use]
    pub fn times(mut self, requests: u32) -> Self {
        self.remaining = Some(requests);
        self
    }

    /// The same fault with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The same fault with this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Value>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(super) fn delay_time(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    pub(super) fn body_bytes(&self) -> Option<Bytes> {
        self.body.as_ref().map(|body| match body.as_str() {
            Some(text) => Bytes::copy_from_slice(text.as_bytes()),
            None => Bytes::from(body.to_string()),
        })
    }

    pub(super) fn header_pairs(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.headers.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
    }

    fn check(&self) -> Result<(), FaultError> {
        if let Some(status) = self.status.filter(|status| !(200..=599).contains(status)) {
            return Err(FaultError::Status(status));
        }
        if self.delay_ms > MAX_FAULT_DELAY_MS {
            return Err(FaultError::Delay(self.delay_ms));
        }
        if self.header_pairs().count() < self.headers.len() {
            return Err(FaultError::Header);
        }
        Ok(())
    }
}

/// Why a fault was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FaultError {
    /// No client could read this status.
    #[error("status {0} is not between 200 and 599")]
    Status(u16),
    /// Longer than any test should wait.
    #[error("delay_ms {0} is more than {MAX_FAULT_DELAY_MS}")]
    Delay(u64),
    /// A header's name or value cannot be sent.
    #[error("a header name or value has characters that HTTP does not allow")]
    Header,
    /// Too many faults wait for this target.
    #[error("{MAX_FAULTS_PER_TARGET} faults wait for this target; clear them with DELETE /_sandbox/faults")]
    Full,
}

/// The faults that are set, per target.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Spares the usual request, for which nothing is set, the lock.
    armed: AtomicBool,
    queues: Mutex<[VecDeque<Fault>; FaultTarget::COUNT]>,
}

impl Faults {
    pub(super) fn set(&self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        let mut queues = self.lock();
        let queue = &mut queues[fault.target as usize];
        // Behind a fault that never ends nothing would ever be reached.
        queue.pop_back_if(|last| last.remaining.is_none());
        if queue.len() >= MAX_FAULTS_PER_TARGET {
            return Err(FaultError::Full);
        }
        if fault.remaining != Some(0) {
            queue.push_back(fault);
        }
        self.armed.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn clear(&self) {
        let mut queues = self.lock();
        queues.iter_mut().for_each(VecDeque::clear);
        self.armed.store(false, Ordering::Release);
    }

    /// The fault for one request to `endpoint`, counted as used.
    pub(super) fn take(&self, endpoint: Endpoint) -> Option<Fault> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut queues = self.lock();
        let queue = &mut queues[FaultTarget::of(endpoint) as usize];
        let first = queue.front_mut()?;
        match &mut first.remaining {
            None => Some(first.clone()),
            Some(left) if *left > 1 => {
                *left -= 1;
                Some(first.clone())
            }
            Some(_) => queue.pop_front(),
        }
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.lock().iter().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, [VecDeque<Fault>; FaultTarget::COUNT]> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn statuses(faults: &Faults, endpoint: Endpoint, requests: usize) -> Vec<Option<u16>> {
        (0..requests).map(|_| faults.take(endpoint).and_then(|fault| fault.status)).collect()
    }

    #[test]
    fn faults_run_out_in_the_order_they_were_set() {
        let faults = Faults::default();
        faults.set(Fault::status(FaultTarget::Model, 503).times(2)).unwrap();
        faults.set(Fault::status(FaultTarget::Model, 429).times(1)).unwrap();
        assert_eq!(statuses(&faults, Endpoint::Products, 1), [None], "another target is not touched");
        assert_eq!(statuses(&faults, Endpoint::Model, 4), [Some(503), Some(503), Some(429), None]);
    }

    #[test]
    fn a_lasting_fault_is_replaced_by_the_next_and_ended_by_clearing() {
        let faults = Faults::default();
        faults.set(Fault::status(FaultTarget::Orders, 503)).unwrap();
        faults.set(Fault::status(FaultTarget::Orders, 500)).unwrap();
        assert_eq!(statuses(&faults, Endpoint::Orders, 2), [Some(500), Some(500)]);
        assert_eq!(statuses(&faults, Endpoint::CustomerOrders, 1), [Some(500)], "the same service");
        faults.clear();
        assert_eq!(statuses(&faults, Endpoint::Orders, 1), [None]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let faults = Faults::default();
        let fault = Fault::status(FaultTarget::Model, 503);
        assert_eq!(faults.set(Fault::status(FaultTarget::Model, 99)), Err(FaultError::Status(99)));
        assert_eq!(faults.set(fault.clone().header("retry after", "9")), Err(FaultError::Header));
        assert_eq!(faults.set(Fault { delay_ms: 600_001, ..fault.clone() }), Err(FaultError::Delay(600_001)));
        for _ in 0..MAX_FAULTS_PER_TARGET {
            faults.set(fault.clone().times(1)).unwrap();
        }
        assert_eq!(faults.set(fault), Err(FaultError::Full));
    }
}
