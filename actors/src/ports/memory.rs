//! In-memory fakes of the ports. Each passes the same contract suite as the real adapter.

pub mod model;
pub mod script;
pub mod source;
pub mod store;
pub mod bus;
