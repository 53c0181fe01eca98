//! The engine on an in-memory bus, with a paused clock and no sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod walls;
