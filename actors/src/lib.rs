//! What a Throughline worker *decides*: every stage, retry, breaker, limit and restart, written against traits
//! ([`ports`]). This crate opens no socket and no file and never reads the wall clock.
//!
//! Read in this order: [`stage`] (one actor, its intake and its workers), [`handler`] (the journey of one
//! delivery), [`stages`] (what each of the five does), [`model_client`] (everything between a prompt and its answer),
//! [`supervisor`] (starting, restarting, draining).
#![forbid(unsafe_code)]

pub mod announcer;
mod another;
mod as_told;
pub mod cause;
pub mod claims;
pub mod closing;
pub mod cost;
pub mod dependency;
pub mod engine;
pub mod exhausted;
pub mod fence;
pub mod handler;
pub mod interruptions;
pub mod listener;
pub(crate) mod live;
pub mod memory;
pub mod message_values;
pub mod model_client;
mod notes;
mod owned_task;
pub mod policy;
pub mod ports;
pub mod prompt;
pub mod reenact;
mod repair;
pub mod retention;
pub mod settings;
pub mod signals;
pub mod source_plan;
pub mod stage;
pub mod stages;
pub mod starter;
pub mod supervisor;
pub mod sweeper;
mod unreadable;
pub mod untold;
pub mod users;
pub mod vitals;
pub mod worker;
