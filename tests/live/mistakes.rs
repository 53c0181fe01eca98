//! Ordinary mistakes, made on purpose. After each either everything ends rightly, or somebody is told what happened and
//! what to do, within [`TOLD_WITHIN`] and where they would look: by the command that they typed, by the worker's log, by
//! `doctor`, or by the end of the workflow. Nothing is lost in any. They are more than fifty.
//!
//! Mistakes with a deployment of their own have a story elsewhere: two databases (`identity.rs`), a database or a log that
//! was put back or lost (`restored.rs`, `vanished.rs`), an id that it has forgotten (`tests/flow/forgotten.rs`), full and locked
//! stores (`causes.rs`, `outages.rs`).

mod commands;
mod running;
mod surroundings;

use std::time::Duration;

/// How soon it is told.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
