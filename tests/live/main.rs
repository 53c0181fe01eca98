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
mod llama;
mod llmock;
mod nats_server;
mod outages;
mod streaming;
mod stream_measure;
mod support_corpus;
