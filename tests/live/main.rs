//! Real NATS, real database, real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod bus;
mod harness;
mod independent_client;
mod nats_server;
