//! A task that ends with its actor, and whose own end the actor is notified of.

use ractor::ActorRef;
use tokio::task::JoinSet;

/// The task has ended.
pub struct Ended;

/// Starts the task of an actor, which keeps what is returned: when that is dropped, the task ends.
pub(crate) fn start(actor: ActorRef<Ended>, task: impl Future<Output = ()> + Send + 'static) -> JoinSet<()> {
    let mut owned = JoinSet::new();
    let last_word = LastWord(actor);
    owned.spawn(async move {
        let _last_word = last_word;
        task.await;
    });
    owned
}

/// Tells the actor of the end of its task when dropped, a panic included.
struct LastWord(ActorRef<Ended>);

impl Drop for LastWord {
    fn drop(&mut self) {
        // An actor that has ended itself does not need to know.
        let _ = self.0.cast(Ended);
    }
}
