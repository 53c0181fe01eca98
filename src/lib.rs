//! Throughline: durable, replayable, event-driven LLM workflows over NATS JetStream.
//!
//! `throughline-schemas` says what an event is, `throughline-actors` decides, and this crate touches the world:
//! NATS, HTTP, the database, files and the terminal.
#![forbid(unsafe_code)]

pub mod app;
pub mod archive;
pub mod bench;
pub mod bus;
mod certificate;
pub mod cli;
pub mod client;
pub mod config;
pub mod dead;
pub mod explain;
pub mod fetch;
mod foreign;
pub mod http;
mod http_client;
pub mod identity;
mod leash;
pub mod llm;
pub mod machine;
pub mod nats_server;
mod period;
pub mod personal;
pub mod prices;
pub mod replay;
pub mod sandbox;
pub mod storage;
pub mod system;
pub mod telemetry;
pub mod tokenizer;
pub mod worker;
