//! Everything of one namespace, from one database into another.
//!
//! The source is marked first, so that no worker goes on with it, and the target gets the namespace's identity last, so
//! that no worker begins with it before everything is there. Between the two rows go over page by page, each page in a
//! transaction of its own that adds what is missing and reads back what is there. A copy that was killed begins again.

mod error;
mod run;
mod side;
pub(super) mod table;

pub use error::{CopyError, Occupied};
pub use run::{Copied, Place, copy};
