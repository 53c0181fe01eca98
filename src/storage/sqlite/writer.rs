//! The one task that writes.

use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};
use throughline_actors::ports::store::HeldStarted;
use tokio::sync::{mpsc, oneshot};

use super::{
    batch::{Applied, Batch},
    file::DatabaseFile,
    write_lock::WriteLock,
};
use crate::storage::{error, operation::Operation};

/// Operations in one transaction.
const MAX_BATCH: usize = 256;

/// Bytes after which no further operation joins a transaction.
const MAX_BATCH_BYTES: usize = 8 << 20;

const WRITING: &str = "writing a batch";

/// Runs until every sender is gone or one of them asked to close.
pub(super) async fn run(
    file: DatabaseFile,
    connection: SqliteConnection,
    mut queue: mpsc::Receiver<Operation>,
) {
    let mut write_lock = WriteLock::of(file.path());
    let mut writer = Writer { file, connection: Some(connection) };
    let mut closing: Option<oneshot::Sender<()>> = None;
    while let Some(first) = queue.recv().await {
        // Whatever is queued by the time that it is our turn shares the commit.
        let turn = write_lock.enter().await;
        let mut operations = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(operation) = next {
            if let Operation::Close(done) = operation {
                queue.close();
                closing = Some(done);
            } else {
                bytes += operation.weight();
                operations.push(operation);
            }
            let full = operations.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES;
            next = if full { None } else { queue.try_recv().ok() };
        }
        writer.write(operations).await;
        drop(turn);
    }
    writer.close().await;
    if let Some(done) = closing {
        // An error means that the caller no longer waits.
        let _ = done.send(());
    }
}

struct Writer {
    file: DatabaseFile,
    /// None after an error: whatever state the connection was in goes with it.
    connection: Option<SqliteConnection>,
}

impl Writer {
    /// Applies and answers all operations.
    async fn write(&mut self, operations: Vec<Operation>) {
        if operations.is_empty() {
            return;
        }
        match self.apply(&operations).await {
            Ok(mut applied) => operations.into_iter().for_each(|operation| applied.answer(operation)),
            Err(refused) if error::is_refused(&refused) && operations.len() > 1 => {
                // One of them is at fault; the others need not suffer for it.
                for operation in operations {
                    match self.apply(std::slice::from_ref(&operation)).await {
                        Ok(mut applied) => applied.answer(operation),
                        Err(error) => operation.refuse(error::from_sqlx(WRITING, error)),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for operation in operations {
                    operation.refuse(error::shared(WRITING, &error));
                }
            }
        }
    }

    async fn apply(&mut self, operations: &[Operation]) -> Result<Applied, sqlx::Error> {
        let batch = Batch::of(operations)?;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.file.connect().await?,
        };
        let applied = batch.apply(self.file.namespace(), &mut connection).await?;
        self.connection = Some(connection);
        Ok(applied)
    }

    async fn close(self) {
        let Some(mut connection) = self.connection else { return };
        // Neither is needed for what was written to be safe; the next to open the file does the rest.
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await {
            tracing::debug!(%error, "the write-ahead log was not folded in");
        }
        if let Err(error) = connection.close().await {
            tracing::debug!(%error, "the database was not closed");
        }
    }
}

impl Applied {
    /// Answers an operation; operations come in the order in which they were given to the batch.
    fn answer(&mut self, operation: Operation) {
        match operation {
            // Who asked second has been given nothing, and may ask again. An error means that the caller no longer waits.
            Operation::StartHeld { answer, .. } => {
                let nothing = HeldStarted { left: true, ..HeldStarted::default() };
                drop(answer.send(Ok(self.started.take().unwrap_or(nothing))));
            }
            operation @ (Operation::Admit { .. }
            | Operation::Save { .. }
            | Operation::Fail { .. }
            | Operation::Close(_)) => self.answers.answer(operation),
        }
    }
}
