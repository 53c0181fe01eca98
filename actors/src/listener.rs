//! The actor that owns the task which hears of interruptions, so that somebody notices when that ends.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;

use crate::{interruptions::Interruptions, ports::bus::Bus};

/// What a listener needs.
#[derive(Clone)]
pub struct ListenerArgs {
    /// What it hears goes there.
    pub interruptions: Interruptions,
    /// Where it listens.
    pub bus: Arc<dyn Bus>,
}

/// See the module's documentation.
pub struct Listener;

/// The task has ended.
pub struct Ended;

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
        let mut task = JoinSet::new();
        let last_word = LastWord(myself);
        task.spawn(async move {
            let _last_word = last_word;
            args.interruptions.listen(args.bus).await;
        });
        Ok(task)
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

/// Tells the actor of the end of its task when dropped, a panic included.
struct LastWord(ActorRef<Ended>);

impl Drop for LastWord {
    fn drop(&mut self) {
        // An actor that has ended itself does not need to know.
        let _ = self.0.cast(Ended);
    }
}
