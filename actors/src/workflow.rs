//! What a workflow and its turn need beside the stages: beginning, ending, resuming and interrupting them.
//!
//! [`stage_context`] is what every stage ends a workflow and starts the next turn with. The [`sweeper`] finds turns on
//! which no worker works, the [`starter`] starts turns that are held for their user's share ([`users`]), the [`listener`]
//! passes [`interruptions`] on. The rest repairs what crashes and restored backups leave behind.

pub(crate) mod end_from_log;
pub(crate) mod id_conflict;
pub mod interruptions;
pub mod listener;
pub(crate) mod live;
pub mod missing_end;
pub(crate) mod owned_task;
pub(crate) mod repair;
pub(crate) mod repetition;
pub(crate) mod saved;
pub mod stage_context;
pub mod starter;
pub(crate) mod superseded;
pub mod sweeper;
pub(crate) mod unreadable;
pub mod users;
