//! In-memory fakes of the ports. Each passes the same contract suite as the real adapter.

pub mod bus;
pub mod model;
pub mod script;
pub mod source;
pub mod store;
