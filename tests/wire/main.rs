//! Real adapters on loopback, with the real clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod copy;
mod http;
mod http_endpoints;
mod namespaces;
mod recordings;
mod sqlite;
mod telemetry;
mod tokens;
