//! Values and pure state machines: `now` and randomness are arguments, nothing waits and nothing is asked.

pub mod announced;
pub mod breaker;
pub mod bucket;
pub mod fallback;
pub mod keywords;
pub mod limits;
pub mod memory;
pub mod merge;
pub mod retention;
pub mod retry;
pub mod routing;
pub mod settle;
pub mod share;
pub mod summary;
pub mod sweep;
pub mod thinning;
pub mod window;
