//! The schema of what is said on `{ns}.control.breaker`. The message itself belongs to the actors, which write it;
//! a test of the `throughline` package holds the two together.
#![allow(dead_code, reason = "only the schema is used")]

use schemars::JsonSchema;

use crate::{StageName, Timestamp};

/// State of a circuit breaker.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
enum BreakerState {
    /// Every call is admitted.
    Closed,
    /// No call is admitted.
    Open,
    /// One probe is admitted; its outcome decides.
    HalfOpen,
}

/// A circuit breaker changed its state.
#[derive(JsonSchema)]
pub(super) struct BreakerMoved {
    /// The stage that owns the breaker.
    stage: StageName,
    /// What it guards: the name of a provider or a source in the configuration, or the database.
    dependency: String,
    /// State before.
    from: BreakerState,
    /// State now.
    to: BreakerState,
    /// When it changed.
    at: Timestamp,
    /// What kind of failure opened it, for a machine; only of a breaker that opens.
    class: Option<String>,
    /// The failure that opened it, on one line; only of a breaker that opens.
    cause: Option<String>,
}
