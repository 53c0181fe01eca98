//! In-memory fakes of the ports. Each passes the same contract suite as the real adapter.

pub mod bus;
