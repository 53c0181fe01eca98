//! The engine on in-memory ports, with a paused clock and no sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A test binary exports nothing; `pub` says what a module offers to its siblings.
#![allow(unreachable_pub)]
// A test names the one case that it is about.
#![allow(clippy::wildcard_enum_match_arm, clippy::match_wild_err_arm)]

mod harness;
mod walls;

mod again;
mod breaker;
mod busy;
mod clocks;
mod crash;
mod database;
mod fence;
mod forgotten;
mod inputs;
mod journey;
mod limits;
mod live;

mod memory;
mod model;
mod owners;
mod pages;
mod poison;
mod recreated;
mod redo;
mod replay;
mod restored;
mod retention;
mod room;
mod routing;
mod schedule;
mod sessions;
mod shares;
mod sources;
mod supervision;
mod sweeper;
mod templates;
mod unreadable;
mod vanished;
mod window;
