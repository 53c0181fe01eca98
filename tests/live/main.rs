//! Real NATS, real database, real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod bad_input;
mod bus;
mod chaos;
mod crashes;
mod dev;
mod faults;
mod first_steps;
mod harness;
mod hostile_corpora;
mod independent_client;
mod llm;
mod nats_cluster;
mod nats_server;
mod outages;
mod streaming;
mod support_corpus;
