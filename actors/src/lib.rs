//! What a Throughline worker *decides*: every stage, retry, breaker, limit and restart, written against traits
//! ([`ports`]). This crate opens no socket and no file and never reads the wall clock.
#![forbid(unsafe_code)]

pub mod policy;
pub mod ports;
