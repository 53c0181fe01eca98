//! Putting a worker process together and keeping it alive: the [`engine`] builds the parts from the [`settings`], the
//! [`supervisor`] starts, restarts and drains them.

pub mod engine;
pub mod settings;
pub mod supervisor;
