//! JSON as publishers write it: read tolerantly where the meaning is clear, and told where it is not.

mod exact;
mod lexer;
mod member;
mod members;
mod problem;
mod salvage;
mod tolerant;

pub use exact::{compact, view};
pub(crate) use exact::{map_texts, shortest};
pub(crate) use member::member;
pub(crate) use members::{Kind, Members};
pub use problem::{JsonProblem, Place};
pub(crate) use salvage::salvage;
pub use tolerant::{MAX_DEPTH, read};
