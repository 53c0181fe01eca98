//! A namespace knows its database, and a database its namespaces.
//!
//! The same identity is in a bucket on the NATS server and in a table of the database. A process that opens both compares
//! them: turns that are admitted into one database and looked for in another one would never end.

mod check_in;
mod decide;
mod keeper;
mod place;

pub use check_in::{CheckInError, CheckedIn, adopt, check_in, compare};
pub use decide::{Refusal, Verdict, decide};
pub use keeper::Keeper;
pub use place::place;
