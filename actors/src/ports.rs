//! The traits through which stages reach the world, each with its error enum.
//!
//! Adapters say *what happened* (rate limited, wait nine seconds); only [`crate::policy`] says what to do about it.
//! Every error answers [`Fault`]: may it be tried again, and may it have happened?

pub mod archive;
pub mod bus;
pub mod clock;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod lease;
pub mod log;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod model;
pub mod source;
pub mod store;
#[cfg(test)]
mod table;
pub mod tokenizer;
pub mod trace;

use std::time::Duration;

/// What an error means for a retry. A port's error classifies itself without a wildcard arm, so a
/// new variant does not compile until someone has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Trying again cannot help, and nothing happened.
    Permanent,
    /// It did not happen; trying again may help, not before `wait_at_least` if the other side asked for that.
    Transient {
        /// The other side's own hint, uncapped.
        wait_at_least: Option<Duration>,
    },
    /// It may have happened (and may have been billed); trying again may help.
    Unknown,
}

/// How an error bears on a dependency's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The dependency answered; the request was at fault. Counts as a success.
    Answered,
    /// The dependency asked to slow down. Paces, but neither trips nor closes the breaker.
    Paced,
    /// The dependency failed. Counts towards the breaker's limit.
    Failed,
}

/// An error that can be classified.
pub trait Classify: std::error::Error {
    /// May it be tried again, may it have happened?
    fn fault(&self) -> Fault;
    /// Does it speak against the dependency?
    fn health(&self) -> Health;
    /// What kind of error it is, for metrics and for readers of causes: one of a bounded set of words.
    fn class(&self) -> &'static str;
}
