//! Runs the stages again on what is on record: with the model, the sources, the database, the clock and chance
//! answering from the record, and with every decision made again by this version of the code.
//!
//! A [`RecordedWorkflow`] is one workflow as it was stored. Each of its events is the result of a stage on an earlier one,
//! so each is replayed on its own ([`Replayer::replay`]): the stage of production gets the recorded cause, every port
//! answers what was recorded with the result ([`tape`]), and what the stage publishes is compared with what it published
//! then ([`difference`]). If every result follows from its cause, the whole follows from its input; if one does not, it is
//! the first event, and the field, in which the code, the prompt or the configuration differ.
//!
//! Two variations of the same: a [`Rerunner`] really makes some results, with models that are really asked, and takes the
//! rest from the record; a [`Simulation`] takes what models did from the record and decides everything about asking them
//! again, for all workflows of a log together.
//!
//! Nothing here opens anything. Replays and simulations run on tokio's paused clock, so no wait takes time.

mod budget;
mod bus;
mod collaborators;
mod compare;
mod error_text;
mod errors;
mod models;
mod recorded_gates;
mod recorded_workflow;
mod replayer;
mod rerun;
mod simulate;
mod sources;
mod store;
pub mod tape;

pub use budget::Budgeted;
pub use compare::{CompareError, Difference, difference};
pub use recorded_workflow::{Link, Message, NotReplayed, RecordedWorkflow, RecordedWorkflowError, Stored};
pub use replayer::{Replayed, Replayer, Verdict};
pub use rerun::{RerunError, RerunPorts, Rerunner, STAGES};
pub use simulate::{Decided, Decisions, Recorded, Simulated, Simulation, results};
