//! Dead letters: reading them, and deciding what becomes of them.
//!
//! A dead letter is stored by whichever stage could not handle a message, and stays until it is retried or dropped.
//! Both leave a record in the stream of dead letters, so that it can be told later what became of it.

mod action;
mod letter;
mod repeat;

pub use action::{Action, ActionError, Outcome, Record, act_on, record_of};
pub use letter::{Letter, failure_code};
pub use repeat::repeat;
