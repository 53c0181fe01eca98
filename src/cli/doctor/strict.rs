//! Whether the server refuses requests with fields that it does not know.
//!
//! A server sends acknowledgements to whatever reply subject a publisher names, past all permissions. An acknowledgement is no
//! valid request; a server that is not strict reads what it knows of it, and one that is sent to `STREAM.PURGE` empties the log.

use super::finding::Finding;
use crate::bus::nats::NatsBus;

const NAME: &str = "strict";

/// Nothing if it does, or if that cannot be asked.
pub(super) async fn check(bus: &NatsBus) -> Option<Finding> {
    // It is strict, or says elsewhere what is wrong with it.
    if bus.is_strict().await != Some(false) {
        return None;
    }
    Some(Finding::warn(
        NAME,
        "the server accepts requests with fields that it does not know, so a publisher can make it empty the log by naming \
         a reply subject",
        "set jetstream { strict: true } in the server's configuration and restart it",
    ))
}
