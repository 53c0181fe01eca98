//! The task between a stage's inbox and its actor.

use ractor::ActorRef;
use tokio::sync::mpsc;

use super::StageMessage;
use crate::ports::bus::{BusError, Inbox};

/// Moves deliveries from the bus to the stage actor, and credit the other way. However it ends, a panic included, the
/// actor is notified.
pub(super) async fn run(
    inbox: Box<dyn Inbox>,
    credits: mpsc::Receiver<usize>,
    stage: ActorRef<StageMessage>,
) {
    let mut last_word = LastWord { stage: stage.clone(), error: None };
    last_word.error = pump(inbox, credits, &stage).await.err();
}

/// Returns without an error when the stage is gone.
async fn pump(
    mut inbox: Box<dyn Inbox>,
    mut credits: mpsc::Receiver<usize>,
    stage: &ActorRef<StageMessage>,
) -> Result<(), BusError> {
    loop {
        tokio::select! {
            biased;
            credit = credits.recv() => match credit {
                Some(credit) => inbox.grant(credit).await?,
                None => return Ok(()),
            },
            next = inbox.next() => {
                if stage.cast(StageMessage::Arrived(next?)).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Tells the stage of the end of its intake when dropped.
struct LastWord {
    stage: ActorRef<StageMessage>,
    error: Option<BusError>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        // A stage that aborts its intake needs no message about it.
        let panicked = std::thread::panicking()
            .then(|| BusError::Unavailable { context: "the intake panicked".to_owned(), source: None });
        if let Some(error) = panicked.or(self.error.take()) {
            // If the stage has ended meanwhile, the message is not needed.
            let _ = self.stage.cast(StageMessage::IntakeEnded(error));
        }
    }
}
