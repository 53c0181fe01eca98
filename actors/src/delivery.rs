//! How one delivery is taken, handled and settled.
//!
//! A [`stage`] takes deliveries from its inbox and gives each to a [`worker`], a child actor; [`handler`] is the journey of
//! one delivery. What protects it: [`claims`] count the deaths that a message caused, [`fence`] stops an attempt whose
//! message another process has, the attempt log keeps what earlier deliveries did, and [`max_deliveries`] stores what the
//! server gave up on as a dead letter.

pub(crate) mod attempt_log;
pub mod claims;
pub mod fence;
pub mod handler;
pub mod max_deliveries;
pub mod stage;
pub mod worker;
