//! External data sources: one call, one JSON document.

use std::time::Duration;

use async_trait::async_trait;
use throughline_schemas::{Document, TraceParent};

use super::{Classify, Fault, Health};
use crate::{
    memory_budget::{Room, WeakRoom},
    policy::memory::{FREE_ANSWER_BYTES, answers_weight},
};

/// How a source is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// Everything is in the URL.
    #[default]
    Get,
    /// With a body. It is tried again like any other call, so it must only read.
    Post,
}

impl Method {
    /// As in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// One call to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchCall {
    /// Name of the source; the adapter knows the headers (credentials) that go with it.
    pub source: String,
    /// The complete URL, values already percent-encoded.
    pub url: String,
    /// How.
    pub method: Method,
    /// Headers of this call, besides those that the adapter knows. What no header can have is refused.
    pub headers: Vec<(String, String)>,
    /// The body, JSON.
    pub body: Option<String>,
    /// Limit on the whole call: connecting, waiting for the answer, reading it.
    pub timeout: Duration,
    /// Limit on the body, in bytes. Compression is never asked for, so these are the bytes on the wire.
    pub max_bytes: usize,
    /// Trace context to send along.
    pub traceparent: TraceParent,
    /// Where the memory for the answer comes from.
    pub room: AnswerRoom,
}

/// The memory for the answer of one call, taken when it is known to be large; small answers take none. By default there is
/// as much as anybody may want.
#[derive(Debug, Clone, Default)]
pub struct AnswerRoom {
    room: Option<WeakRoom>,
    /// Bytes that the other answers of the same delivery may have.
    others: u64,
}

impl AnswerRoom {
    /// Room in what the delivery has, whose other answers may have so many bytes in all.
    pub fn new(room: &Room, others: u64) -> Self {
        Self { room: Some(room.downgrade()), others }
    }

    /// Takes the memory for an answer of so many bytes if there is some at this moment; whether there is. No call may wait
    /// for it with a part of the answer in hand.
    pub fn take_now(&self, bytes: usize) -> bool {
        let Some(room) = self.of_large(bytes) else { return true };
        room.take_more_now(answers_weight(self.others.saturating_add(bytes as u64)))
    }

    /// The same, and waits for it. Never completes if there will be none; the call is dropped then.
    pub async fn take(&self, bytes: usize) {
        if let Some(room) = self.of_large(bytes) {
            room.take_more(answers_weight(self.others.saturating_add(bytes as u64))).await;
        }
    }

    fn of_large(&self, bytes: usize) -> Option<Room> {
        // A call that outlives its delivery has no owner.
        self.room.as_ref().filter(|_| bytes > FREE_ANSWER_BYTES)?.upgrade()
    }
}

/// Calls that ask the same are the same, wherever the memory for their answers comes from.
impl PartialEq for AnswerRoom {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for AnswerRoom {}

/// Why there is no data. No text of the source's body is repeated, and no URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No complete answer in time.
    #[error("no complete answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// No connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// 404 or 410, or a success that has no body by definition (204, 205): the source has no such document.
    #[error("has no such document (HTTP {0})")]
    NotFound(u16),
    /// 429, with the wait that was asked for.
    #[error("asked to slow down (HTTP 429)")]
    RateLimited {
        /// Parsed `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// 5xx, 408 or 425.
    #[error("failed (HTTP {status})")]
    Server {
        /// The status.
        status: u16,
        /// Parsed `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// Any other status that is not a success; redirects included, which are not followed.
    #[error("refused the request (HTTP {0})")]
    Refused(u16),
    /// The body is larger than allowed.
    #[error("answered with more than {0} bytes; raise the source's max_bytes if that is legitimate")]
    TooLarge(usize),
    /// The body is not JSON, or nested too deep; says where it stops being JSON, not what is there.
    #[error("answered with something that is not JSON: {0}")]
    NotJson(String),
    /// Nothing was sent: the call names a source that is not configured, or its URL is not one.
    #[error("cannot be asked: {0}")]
    Misconfigured(String),
}

impl FetchError {
    /// The code in `external_data_fetched`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TimedOut(_) => "timed_out",
            Self::Unreachable(_) => "unreachable",
            Self::NotFound(_) => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::Server { .. } | Self::Refused(_) => "status",
            Self::TooLarge(_) => "too_large",
            Self::NotJson(_) => "not_json",
            Self::Misconfigured(_) => "misconfigured",
        }
    }

    /// The HTTP status, where there was one.
    pub fn http_status(&self) -> Option<u16> {
        match self {
            Self::NotFound(status) | Self::Refused(status) | Self::Server { status, .. } => Some(*status),
            Self::RateLimited { .. } => Some(429),
            Self::TimedOut(_)
            | Self::Unreachable(_)
            | Self::TooLarge(_)
            | Self::NotJson(_)
            | Self::Misconfigured(_) => None,
        }
    }
}

impl Classify for FetchError {
    fn fault(&self) -> Fault {
        match self {
            Self::TimedOut(_) | Self::Unreachable(_) => Fault::Transient { wait_at_least: None },
            Self::RateLimited { retry_after } | Self::Server { retry_after, .. } => {
                Fault::Transient { wait_at_least: *retry_after }
            }
            Self::NotFound(_)
            | Self::Refused(_)
            | Self::TooLarge(_)
            | Self::NotJson(_)
            | Self::Misconfigured(_) => Fault::Permanent,
        }
    }

    fn health(&self) -> Health {
        match self {
            // What depends on this one request says nothing to the requests of others: an id whose document is too
            // large, a status that was chosen for it, an error page. Such calls are not made again, so that a source
            // which answers everybody so costs each workflow one call and no waiting.
            Self::NotFound(_) | Self::Refused(_) | Self::TooLarge(_) | Self::NotJson(_) => Health::Answered,
            // A call that was never made says nothing about the source.
            Self::RateLimited { .. } | Self::Misconfigured(_) => Health::Paced,
            Self::TimedOut(_) | Self::Unreachable(_) | Self::Server { .. } => Health::Failed,
        }
    }

    fn class(&self) -> &'static str {
        self.code()
    }
}

/// All configured sources.
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// Makes one call and never a second one: redirects are not followed, nothing is tried again. Dropping the
    /// future abandons the call and closes its connection.
    async fn fetch(&self, call: &FetchCall) -> Result<Document, FetchError>;
}
