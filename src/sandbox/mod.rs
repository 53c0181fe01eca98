//! Local stand-ins for the data sources and the model: real HTTP on loopback, no account, no network.
//!
//! `throughline dev`, `throughline bench` and the tests talk to them exactly as they would talk to the real
//! services. The model stand-in speaks the protocols of `OpenAI`, Anthropic and Gemini and answers from the data in the prompt, so an
//! answer that names the right order proves that the order travelled the whole way.
//!
//! | request | answer |
//! |---|---|
//! | `GET /customers/{user_id}` | the customer's profile and preferences |
//! | `GET /customers/{user_id}/orders` | `{"user_id", "orders": [...]}`, newest order first |
//! | `GET /orders/{order_id}` | one order; the `#` of an order id may be left out |
//! | `GET /products/{product_id}` | one product |
//! | `POST /v1/chat/completions`, `GET /v1/models` | the model, as `OpenAI` |
//! | `POST /v1/messages` | the model, as Anthropic; its `base_url` is the sandbox's own |
//! | `POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent?alt=sse` | the model, as Gemini; likewise |
//! | `POST`, `GET`, `DELETE /_sandbox/faults` | make a dependency fail, see [`Fault`] |
//! | `GET /_sandbox/counts`, `GET /_sandbox/ledger` | what was asked, see [`Counts`] and [`Ledger`] |

mod answer;
mod anthropic;
mod app;
mod chat;
mod config;
mod control;
mod dataset;
mod fault;
mod gemini;
mod ledger;
mod options;
mod respond;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use answer::{Role, Turn, answer};
pub use config::SandboxConfig;
pub use dataset::DatasetError;
pub use fault::{Fault, FaultError, FaultTarget};
pub use ledger::{Counts, Ledger, LedgerEntry};
pub use options::SandboxOptions;
pub use server::{Sandbox, SandboxError};
