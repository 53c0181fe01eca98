//! The actor that announces breaker transitions, on `{ns}.control.breaker`.
//!
//! Announcing is best effort: what counts is logged and counted where it happens.

use std::{sync::Arc, time::Duration};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde::Serialize;
use throughline_schemas::{StageName, Timestamp};

use crate::{policy::breaker::BreakerState, ports::bus::Broadcast};

/// How long one announcement may take before it is given up.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(5);

/// A breaker changed its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BreakerMoved {
    /// Stage that owns the breaker.
    pub stage: StageName,
    /// What it guards.
    pub dependency: String,
    /// State before.
    pub from: BreakerState,
    /// State now.
    pub to: BreakerState,
    /// When.
    pub at: Timestamp,
    /// What kind of failure opened it, for a machine; only of a breaker that opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    /// The failure that opened it, for a person; only of a breaker that opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// Publishes transitions in the order in which they are reported.
pub struct Announcer;

impl Actor for Announcer {
    type Msg = BreakerMoved;
    type State = Arc<dyn Broadcast>;
    type Arguments = Arc<dyn Broadcast>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        bus: Arc<dyn Broadcast>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(bus)
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        moved: BreakerMoved,
        bus: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let body = match serde_json::to_vec(&moved) {
            Ok(body) => body,
            Err(error) => {
                tracing::debug!(%error, "breaker transition not written");
                return Ok(());
            }
        };
        match tokio::time::timeout(ANNOUNCE_TIMEOUT, bus.announce("breaker", body.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "breaker transition not announced"),
            Err(_) => tracing::debug!("breaker transition not announced in time"),
        }
        Ok(())
    }
}
