//! `external_data_fetched`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ErrorDetail, context::Context, input::Request};
use crate::{Document, Millis};

/// How fetching from one source went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceStatus {
    /// It answered; see `data`.
    Ok,
    /// It did not; see `error`. The workflow goes on without its data, unless the source is required.
    Failed,
    /// The text did not ask for it; no call was made.
    Skipped,
}

/// Why a source's data is missing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceError {
    /// `timed_out`, `unreachable`, `status`, `not_found`, `too_large`, `not_json`, `misconfigured`, `rate_limited` or
    /// `breaker_open`.
    pub code: String,
    /// What went wrong, for a person.
    pub message: String,
    /// The HTTP status, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
}

/// One call to a source that failed, or that an open breaker or a pace prevented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FailedCall {
    /// Which of the source's URLs it was for, from 0, where its text asks for several.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub url: u32,
    /// How long it took.
    #[serde(default)]
    pub duration_ms: Millis,
    /// What went wrong.
    pub error: SourceError,
    /// The parts of that error; absent in events of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    /// How long the source asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The wait that was decided on before the next call, in milliseconds; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// The random number that was drawn for the backoff: 0 stands for half of its longest wait, 4,294,967,295 for all of
    /// it. Absent if none was drawn; there may be one although no wait followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a source was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceRequest {
    /// `POST`; absent if it was a GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path and query, with the values in them; where the source is, is in the configuration. Query parameters whose names
    /// say that they are secret are replaced by `***`, and what is longer than 2,000 characters is cut.
    pub url: String,
    /// What was put into it, by placeholder: taken from the text, a default, or from the message. Ids and the text
    /// itself are not repeated.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// The body that was sent, if it is no larger than 4,096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// What one source answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourceResult {
    /// How it went.
    pub status: SourceStatus,
    /// What the source answered: its JSON as it was written, or an array with one entry for each value fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub data: Option<Document>,
    /// Why there is no data, or not all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<SourceError>,
    /// Calls made, retries included.
    #[serde(default)]
    pub calls: u32,
    /// From the first call to the last answer, waits included.
    #[serde(default)]
    pub duration_ms: Millis,
    /// The calls that failed, and those that were prevented: those for its first URL first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_calls: Vec<FailedCall>,
    /// What it was asked, each request once however often it was made; absent in events of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<SourceRequest>,
}

impl SourceResult {
    /// Whether data is missing, all of it or some.
    pub fn is_degraded(&self) -> bool {
        self.error.is_some() || self.status == SourceStatus::Failed
    }
}

/// `external_data_fetched`: what each configured source answered, or why it did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExternalDataFetched {
    /// The validated request.
    pub request: Request,
    /// What the database knows, with the profile's preferences added.
    pub context: Context,
    /// By source name.
    pub external: BTreeMap<String, SourceResult>,
}
