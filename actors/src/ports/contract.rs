//! One suite per port, which the fake and every real adapter pass.

pub mod bus;
pub mod log;
pub mod model;
pub mod source;
pub mod store;
