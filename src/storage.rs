//! Where turns, interactions and preferences are kept: adapters of [`throughline_actors::ports::store`].
//! Tables and columns have the same names in every database.

mod answers;
mod context_rows;
pub mod copy;
mod database;
mod erase;
mod error;
mod kept;
mod look;
pub mod namespaces;
mod onlooker;
mod operation;
pub mod postgres;
mod queues;
pub mod sqlite;
mod text;

pub use database::{Database, DatabaseError};
pub use erase::{After, Erased, JsonRow, TheirRow};
pub use look::{Looked, Tables, look};
pub use namespaces::{Beat, CopiedTo, Identity, Peeked, Stranger, peek, peek_end};
pub use onlooker::{Onlooker, OnlookerError, QUESTION_TIMEOUT};
