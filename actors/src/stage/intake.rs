//! The task between a stage's inbox and its actor.

use ractor::ActorRef;
use tokio::sync::mpsc;

use super::StageMessage;
use crate::ports::bus::Inbox;

/// Moves deliveries from the bus to the stage actor, and credit the other way.
pub(super) async fn run(
    mut inbox: Box<dyn Inbox>,
    mut credits: mpsc::Receiver<usize>,
    stage: ActorRef<StageMessage>,
) {
    let error = loop {
        tokio::select! {
            biased;
            credit = credits.recv() => match credit {
                Some(credit) => {
                    if let Err(error) = inbox.grant(credit).await {
                        break error;
                    }
                }
                None => return,
            },
            next = inbox.next() => match next {
                Ok(delivery) => {
                    if stage.cast(StageMessage::Arrived(delivery)).is_err() {
                        return;
                    }
                }
                Err(error) => break error,
            },
        }
    };
    // If the stage has ended meanwhile, nobody needs to know.
    let _ = stage.cast(StageMessage::IntakeEnded(error));
}
