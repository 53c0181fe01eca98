//! Values and pure state machines: `now` and randomness are arguments, nothing waits and nothing is asked.

pub mod breaker;
pub mod fallback;
pub mod lease;
pub mod limits;
pub mod merge;
pub mod retry;
pub mod routing;
pub mod settle;
pub mod sweep;
