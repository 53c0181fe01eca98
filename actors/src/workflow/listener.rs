//! The actor that owns the subscription to interruptions, so that its end is noticed.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use crate::{
    ports::bus::Broadcast,
    workflow::{
        interruptions::Interruptions,
        owned_task::{self, Ended},
    },
};

/// What a listener needs.
#[derive(Clone)]
pub struct ListenerArgs {
    /// Where the hints go.
    pub interruptions: Interruptions,
    /// Where it listens.
    pub bus: Arc<dyn Broadcast>,
}

/// See the module's documentation.
pub struct Listener;

/// The listener cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("hearing of interruptions ended")]
struct NothingHeard;

impl Actor for Listener {
    type Msg = Ended;
    /// Ends with the actor.
    type State = JoinSet<()>;
    type Arguments = ListenerArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<Ended>,
        args: ListenerArgs,
    ) -> Result<JoinSet<()>, ActorProcessingErr> {
        Ok(owned_task::start(myself, async move { args.interruptions.listen(args.bus).await }))
    }

    async fn handle(
        &self,
        _: ActorRef<Ended>,
        Ended: Ended,
        _: &mut JoinSet<()>,
    ) -> Result<(), ActorProcessingErr> {
        Err(NothingHeard.into())
    }
}
