//! The event bus on NATS `JetStream`.

pub mod nats;
