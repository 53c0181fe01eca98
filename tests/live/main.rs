//! Real NATS, real database, real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod bad_input;
mod bus;
mod causes;
mod chaos;
mod containers;
mod crashes;
mod dead_letters;
mod dev;
mod explain;
mod explain_measure;
mod faults;
mod first_steps;
mod harness;
mod hostile_corpora;
mod identity;
mod idle;
mod independent_client;
mod listening;
mod llama;
mod llm;
mod llmock;
mod nats_cluster;
mod nats_server;
mod outages;
mod postgres;
mod postgres_server;
mod recipe;
mod recording;
mod replay;
mod sessions;
mod stopping;
mod stream_measure;
mod streaming;
mod support_corpus;
mod vanished;
