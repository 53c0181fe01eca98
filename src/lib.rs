//! x
pub mod bus;
