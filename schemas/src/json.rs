//! JSON as publishers write it: read tolerantly where the meaning is clear, and told where it is not.

mod lexer;
mod members;
mod problem;
mod salvage;
mod tolerant;

pub(crate) use members::{Kind, Members};
pub use problem::{JsonProblem, Place};
pub(crate) use salvage::salvage;
pub use tolerant::MAX_DEPTH;
pub(crate) use tolerant::read;
