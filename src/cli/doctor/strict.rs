//! Whether the server refuses requests with fields that it does not know.
//!
//! A server sends acknowledgements to whatever reply subject a publisher names, past all permissions. An acknowledgement is no
//! valid request; a server that is not strict reads what it knows of it, and one that is sent to `STREAM.PURGE` empties the log.

use async_nats::jetstream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::finding::Finding;
use crate::bus::nats::NatsBus;

const NAME: &str = "strict";

/// Nothing if it does, or if that cannot be asked.
pub(super) async fn check(bus: &NatsBus, jetstream: &jetstream::Context) -> Option<Finding> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        error: Option<Value>,
        #[serde(default)]
        state: Option<Value>,
    }
    let address = format!("STREAM.INFO.{}", bus.names().events());
    let asked = jetstream.request(address, &json!({ "no_field_of_this_name": true })).await;
    match asked {
        Ok(Answer { error: None, state: Some(_) }) => Some(Finding::warn(
            NAME,
            "the server accepts requests with fields that it does not know, so a publisher can make it empty the log by naming \
             a reply subject",
            "set jetstream { strict: true } in the server's configuration and restart it",
        )),
        // It is strict, or says elsewhere what is wrong with it.
        Ok(_) | Err(_) => None,
    }
}
