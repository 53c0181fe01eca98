//! Values and pure state machines: `now` and randomness are arguments, nothing waits and nothing is asked.

pub mod breaker;
pub mod limits;
pub mod merge;
pub mod retry;
pub mod settle;
