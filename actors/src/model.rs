//! Everything between a prompt and its answer: rendering the [`prompt`], asking models ([`client`]) and what that
//! [`cost`]s.

pub mod client;
pub mod cost;
pub mod prompt;
