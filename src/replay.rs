//! What recorded workflows show: whether they come out the same again, what they would have come to with something
//! changed, and what would have been decided under another configuration.
//!
//! The deciding is in `throughline_actors::replay`; here are the files, the threads and the reports around it.

pub mod history;
pub mod recording;
pub mod redo;
pub mod report;
pub mod rerun;
pub mod selection;
pub mod setup;
pub mod simulate;
pub mod source;
pub mod verify;

pub use setup::Setup;
