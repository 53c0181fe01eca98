//! What is kept about one user or one session, wherever it is: found, handed out, and erased.
//!
//! The stores are the event log with its large bodies, the dead letters, the bucket of claims and notes, the archives, and the
//! database. What was handed out before (recordings, exports, backups, logs of processes) is out of reach, and is named.

mod error;
mod export;
mod forget;
mod gather;
mod log;
mod whom;

pub use error::PersonalError;
pub use export::{Exported, export};
pub use forget::{Forgotten, OUT_OF_REACH, forget};
pub use gather::Stores;
pub(crate) use whom::Matcher;
pub use whom::Whom;
