//! The calls of a store, as entries of the queues that its tasks gather from.

use std::time::Duration;

use throughline_actors::ports::store::{
    Admission, Admitted, Closed, Failing, HeldQuery, HeldStarted, Interaction, StoreError,
};
use throughline_schemas::event::context::Context;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    context_rows::READING,
    error,
    operation::{Answer, Operation, Question},
};

/// Operations that may wait to be written, and questions that may wait to be asked; more wait to be queued.
const LENGTH: usize = 1024;

#[derive(Debug)]
pub(super) struct Queues {
    writes: mpsc::Sender<Operation>,
    reads: mpsc::Sender<Question>,
    /// Longest time that one call may take, waiting in queues included.
    limit: Duration,
}

impl Queues {
    /// The queues and their other ends.
    pub(super) fn new(limit: Duration) -> (Self, mpsc::Receiver<Operation>, mpsc::Receiver<Question>) {
        let (writes, operations) = mpsc::channel(LENGTH);
        let (reads, questions) = mpsc::channel(LENGTH);
        (Self { writes, reads, limit }, operations, questions)
    }

    pub(super) async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        self.write("admitting inputs", |answer| Operation::Admit { batch, answer }).await
    }

    pub(super) async fn save(&self, interaction: Interaction) -> Result<Closed, StoreError> {
        let interaction = Box::new(interaction);
        self.write("saving an interaction", |answer| Operation::Save { interaction, answer }).await
    }

    pub(super) async fn fail(&self, failing: Failing) -> Result<Closed, StoreError> {
        self.write("failing a turn", |answer| Operation::Fail { failing, answer }).await
    }

    pub(super) async fn start_held(&self, query: HeldQuery) -> Result<HeldStarted, StoreError> {
        self.write("starting held turns", |answer| Operation::StartHeld { query, answer }).await
    }

    pub(super) async fn context(
        &self,
        user: &str,
        session: &str,
        turns: usize,
    ) -> Result<Context, StoreError> {
        let (answer, answered) = oneshot::channel();
        let question = Question { user: user.to_owned(), session: session.to_owned(), turns, answer };
        let read = async {
            self.reads.send(question).await.map_err(|_| error::closed(READING))?;
            answered.await.map_err(|_| error::closed(READING))?
        };
        self.in_time(READING, read).await
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        // No such user and no such session: ids are never empty. It still goes the way of every read.
        self.context("", "", 0).await.map(drop)
    }

    /// Has everything written that is queued. Every later write fails.
    pub(super) async fn finish(&self) {
        let (closed, done) = oneshot::channel();
        if self.writes.send(Operation::Close(closed)).await.is_ok() {
            // An error means that the writer is gone, which is what was asked for.
            let _ = done.await;
        }
    }

    /// Completes when the task at the other end of a queue has ended.
    pub(super) async fn ended(&self) {
        tokio::select! {
            () = self.writes.closed() => {}
            () = self.reads.closed() => {}
        }
    }

    /// Waits no longer than one call may take.
    pub(super) async fn in_time<T>(
        &self,
        context: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        timeout(self.limit, call).await.map_err(|_| error::too_slow(context))?
    }

    async fn write<T>(
        &self,
        context: &'static str,
        operation: impl FnOnce(Answer<T>) -> Operation,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let write = async {
            self.writes.send(operation(answer)).await.map_err(|_| error::closed(context))?;
            answered.await.map_err(|_| error::closed(context))?
        };
        self.in_time(context, write).await
    }
}
