//! Throughline: durable, replayable, event-driven LLM workflows over NATS `JetStream`.

pub mod fetch;
mod http_client;
pub mod llm;

pub use http_client::install_tls;
