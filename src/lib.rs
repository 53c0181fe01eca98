//! x

pub mod storage;
