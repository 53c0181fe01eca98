//! What was asked of the stand-ins.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use throughline_actors::ports::clock::Clock;

use crate::system::SystemClock;

use axum::http::{StatusCode, Uri};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Requests kept for each endpoint; the oldest are forgotten first.
const MAX_ENTRIES_PER_ENDPOINT: usize = 1_000;
/// Request bodies kept for each endpoint, in bytes; the oldest are forgotten first.
const MAX_BODY_BYTES_PER_ENDPOINT: usize = 32 * 1024 * 1024;

/// The doors that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Model,
    Customers,
    CustomerOrders,
    Orders,
    Products,
}

impl Endpoint {
    const COUNT: usize = 5;
}

/// How many requests arrived, refused and failed ones included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The model, whatever protocol it was asked in
    pub model: u64,
    /// `GET /customers/{user_id}`
    pub customers: u64,
    /// `GET /customers/{user_id}/orders`
    pub customer_orders: u64,
    /// `GET /orders/{order_id}`
    pub orders: u64,
    /// `GET /products/{product_id}`
    pub products: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// When it arrived, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Path and query as sent.
    pub path: String,
    /// Size of the request's body.
    pub bytes: usize,
    /// The status it was answered with; `None` when the client left before there was an answer.
    pub status: Option<u16>,
    /// The `messages` of a model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Value>,
}

/// The newest requests of each endpoint, in the order in which they were answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The model, whatever protocol it was asked in
    pub model: Vec<LedgerEntry>,
    /// `GET /customers/{user_id}`
    pub customers: Vec<LedgerEntry>,
    /// `GET /customers/{user_id}/orders`
    pub customer_orders: Vec<LedgerEntry>,
    /// `GET /orders/{order_id}`
    pub orders: Vec<LedgerEntry>,
    /// `GET /products/{product_id}`
    pub products: Vec<LedgerEntry>,
}

/// Keeps counts always, and requests when asked to.
#[derive(Debug)]
pub(super) struct Recorder {
    counts: [AtomicU64; Endpoint::COUNT],
    kept: Option<[Mutex<Kept>; Endpoint::COUNT]>,
}

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    body_bytes: usize,
}

/// A request as it is kept: the body is only parsed when somebody looks.
#[derive(Debug)]
struct Record {
    at_ms: u64,
    path: String,
    status: Option<u16>,
    body: Bytes,
}

impl Recorder {
    pub(super) fn new(record_requests: bool) -> Self {
        Self { counts: Default::default(), kept: record_requests.then(Default::default) }
    }

    /// Counts a request, and keeps it once the returned guard is dropped.
    pub(super) fn arrived(&self, endpoint: Endpoint, uri: &Uri, body: &Bytes) -> Arrival<'_> {
        self.counts[endpoint as usize].fetch_add(1, Ordering::Relaxed);
        let record = self.kept.as_ref().map(|kept| {
            let record = Record {
                at_ms: unix_ms(),
                path: uri.path_and_query().map_or_else(String::new, ToString::to_string),
                status: None,
                // A copy, so that a small body does not keep a connection's whole read buffer alive.
                body: Bytes::copy_from_slice(body),
            };
            (&kept[endpoint as usize], record)
        });
        Arrival { record }
    }

    pub(super) fn counts(&self) -> Counts {
        let count = |endpoint: Endpoint| self.counts[endpoint as usize].load(Ordering::Relaxed);
        Counts {
            model: count(Endpoint::Model),
            customers: count(Endpoint::Customers),
            customer_orders: count(Endpoint::CustomerOrders),
            orders: count(Endpoint::Orders),
            products: count(Endpoint::Products),
        }
    }

    pub(super) fn ledger(&self) -> Ledger {
        Ledger {
            model: self.entries(Endpoint::Model),
            customers: self.entries(Endpoint::Customers),
            customer_orders: self.entries(Endpoint::CustomerOrders),
            orders: self.entries(Endpoint::Orders),
            products: self.entries(Endpoint::Products),
        }
    }

    fn entries(&self, endpoint: Endpoint) -> Vec<LedgerEntry> {
        let Some(kept) = &self.kept else { return Vec::new() };
        let records: Vec<_> = {
            let kept = kept[endpoint as usize].lock().unwrap_or_else(PoisonError::into_inner);
            kept.records.iter().map(Arc::clone).collect()
        };
        records.iter().map(|record| record.entry()).collect()
    }
}

impl Record {
    fn entry(&self) -> LedgerEntry {
        let prompt = serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|mut body| body.get_mut("messages").map(Value::take));
        LedgerEntry {
            at_ms: self.at_ms,
            path: self.path.clone(),
            bytes: self.body.len(),
            status: self.status,
            prompt,
        }
    }
}

impl Kept {
    fn push(&mut self, record: Record) {
        self.body_bytes += record.body.len();
        self.records.push_back(Arc::new(record));
        while self.records.len() > MAX_ENTRIES_PER_ENDPOINT || self.body_bytes > MAX_BODY_BYTES_PER_ENDPOINT {
            let Some(oldest) = self.records.pop_front() else { break };
            self.body_bytes -= oldest.body.len();
        }
    }
}

/// A request that is being answered. Dropped unanswered, it is kept without a status.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    record: Option<(&'a Mutex<Kept>, Record)>,
}

impl Arrival<'_> {
    pub(super) fn answered(mut self, status: StatusCode) {
        if let Some((_, record)) = &mut self.record {
            record.status = Some(status.as_u16());
        }
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if let Some((kept, record)) = self.record.take() {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        }
    }
}

pub(super) fn unix_ms() -> u64 {
    u64::try_from(SystemClock.now().unix_ms()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn chat() -> Uri {
        Uri::from_static("/v1/chat/completions")
    }

    #[test]
    fn without_recording_there_are_counts_only() {
        let recorder = Recorder::new(false);
        recorder.arrived(Endpoint::Model, &chat(), &Bytes::new()).answered(StatusCode::OK);
        recorder.arrived(Endpoint::Orders, &chat(), &Bytes::new()).answered(StatusCode::OK);
        assert_eq!(recorder.counts(), Counts { model: 1, orders: 1, ..Counts::default() });
        assert_eq!(recorder.ledger(), Ledger::default());
    }

    #[test]
    fn the_newest_requests_are_kept_with_their_prompts() {
        let recorder = Recorder::new(true);
        for turn in 0..=MAX_ENTRIES_PER_ENDPOINT {
            let body = Bytes::from(format!(r#"{{"messages":[{{"role":"user","content":"{turn}"}}]}}"#));
            recorder.arrived(Endpoint::Model, &chat(), &body).answered(StatusCode::OK);
        }
        let entries = recorder.ledger().model;
        assert_eq!(entries.len(), MAX_ENTRIES_PER_ENDPOINT);
        assert_eq!(entries[0].prompt.as_ref().unwrap()[0]["content"], "1", "the oldest is forgotten");
        assert_eq!(entries[0].path, "/v1/chat/completions");
        assert_eq!(recorder.counts().model, MAX_ENTRIES_PER_ENDPOINT as u64 + 1);
    }

    #[test]
    fn large_bodies_push_older_ones_out() {
        let recorder = Recorder::new(true);
        let body = Bytes::from(vec![b'x'; MAX_BODY_BYTES_PER_ENDPOINT / 2 + 1]);
        for _ in 0..2 {
            recorder.arrived(Endpoint::Model, &chat(), &body).answered(StatusCode::OK);
        }
        assert_eq!(recorder.ledger().model.len(), 1);
    }

    #[test]
    fn a_client_that_left_is_kept_without_a_status() {
        let recorder = Recorder::new(true);
        drop(recorder.arrived(Endpoint::Model, &chat(), &Bytes::new()));
        assert_eq!(recorder.ledger().model[0].status, None);
    }
}
