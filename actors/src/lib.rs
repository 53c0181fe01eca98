//! What a Throughline worker *decides*: every stage, retry, breaker, limit and restart, written against traits
//! ([`ports`]). This crate opens no socket and no file and never reads the wall clock.
//!
//! The rooms, in the order in which to read them:
//!
//! - [`delivery`]: how one delivery is taken, handled and settled.
//! - [`stages`]: what each of the five stages does with an event.
//! - [`model`]: everything between a prompt and its answer.
//! - [`dependency`]: calls to what may fail: breaker, pace and retries, and what fails now and why.
//! - [`workflow`]: beginning, ending, resuming and interrupting turns.
//! - [`supervision`]: putting a worker process together, restarting and draining its parts.
//! - [`retention`]: keeping room in the log, removing what is finished and old enough.
//! - [`replay`]: running the stages again on what is on record.
//! - [`policy`]: the decisions as values and pure state machines.
//! - [`ports`]: the traits through which all of this reaches the world.
//!
//! Three files serve all rooms: [`memory_budget`] (memory for messages in hand), [`message_values`] (what prompts and
//! requests may say about a message) and [`metrics`] (the names and values of all metrics).
#![forbid(unsafe_code)]

pub mod delivery;
pub mod dependency;
pub mod memory_budget;
pub mod message_values;
pub mod metrics;
pub mod model;
pub mod policy;
pub mod ports;
pub mod replay;
pub mod retention;
pub mod stages;
pub mod supervision;
pub mod workflow;
