//! The tasks that gather calls: those that come while all connections are busy share the next one.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    apply::Batch,
    connection::{Connections, Lease},
    context::Ask,
};
use crate::storage::{
    answers::Answers,
    context_rows::{self, MAX_QUESTIONS},
    error,
    operation::{Operation, Question},
};

/// Sessions in one batch, more or less: beyond what the server has locks for, a batch must run alone.
const MAX_SESSIONS: usize = 48;

/// Bytes after which no further operation joins a batch.
const MAX_BATCH_BYTES: usize = 8 << 20;

const WRITING: &str = "writing a batch";

/// Runs until every sender is gone or one of them asked to close, and all is written.
pub(super) async fn write(
    connections: Connections,
    namespace: Arc<str>,
    mut queue: mpsc::Receiver<Operation>,
) {
    let mut closing: Option<oneshot::Sender<()>> = None;
    // As many as there are connections.
    let mut writing = JoinSet::new();
    while let Some(first) = queue.recv().await {
        // A free connection first, then all that has come in the meantime.
        let lease = connections.get().await;
        let (mut operations, mut sessions, mut bytes) = (Vec::new(), 0, 0);
        let mut next = Some(first);
        while let Some(operation) = next {
            if let Operation::Close(done) = operation {
                queue.close();
                closing = Some(done);
            } else {
                sessions += operation.sessions();
                bytes += operation.weight();
                operations.push(operation);
            }
            let full = sessions >= MAX_SESSIONS || bytes >= MAX_BATCH_BYTES;
            next = if full { None } else { queue.try_recv().ok() };
        }
        while writing.try_join_next().is_some() {}
        match lease {
            Ok(lease) => {
                drop(writing.spawn(apply_all(
                    connections.clone(),
                    Arc::clone(&namespace),
                    lease,
                    operations,
                )));
            }
            Err(error) => refuse_all(operations, error),
        }
    }
    while writing.join_next().await.is_some() {}
    if let Some(done) = closing {
        // An error means that the caller no longer waits.
        let _ = done.send(());
    }
}

/// Applies and answers all operations.
async fn apply_all(connections: Connections, namespace: Arc<str>, lease: Lease, operations: Vec<Operation>) {
    match apply(&connections, &namespace, lease, &operations).await {
        Ok(mut answers) => operations.into_iter().for_each(|operation| answers.answer(operation)),
        Err(refused) if error::is_refused(&refused) && operations.len() > 1 => {
            // One of them is at fault; the others need not suffer for it.
            for operation in operations {
                match apply_alone(&connections, &namespace, &operation).await {
                    Ok(mut answers) => answers.answer(operation),
                    Err(error) => operation.refuse(error::from_sqlx(WRITING, error)),
                }
            }
        }
        Err(error) => refuse_all(operations, error),
    }
}

async fn apply(
    connections: &Connections,
    namespace: &str,
    lease: Lease,
    operations: &[Operation],
) -> Result<Answers, sqlx::Error> {
    if operations.is_empty() {
        return Answers::new(Vec::new(), 0);
    }
    connections.run(lease, &Batch::of(namespace, operations)?).await
}

async fn apply_alone(
    connections: &Connections,
    namespace: &str,
    operation: &Operation,
) -> Result<Answers, sqlx::Error> {
    let lease = connections.get().await?;
    apply(connections, namespace, lease, std::slice::from_ref(operation)).await
}

fn refuse_all(operations: Vec<Operation>, error: sqlx::Error) {
    let error = Arc::new(error);
    for operation in operations {
        operation.refuse(error::shared(WRITING, &error));
    }
}

/// Runs until every sender is gone.
pub(super) async fn read(connections: Connections, namespace: Arc<str>, mut queue: mpsc::Receiver<Question>) {
    while let Some(first) = queue.recv().await {
        let mut questions = vec![first];
        let lease = connections.get().await;
        while questions.len() < MAX_QUESTIONS
            && let Ok(question) = queue.try_recv()
        {
            questions.push(question);
        }
        match lease {
            Ok(lease) => {
                let (connections, namespace) = (connections.clone(), Arc::clone(&namespace));
                tokio::spawn(async move {
                    let contexts =
                        connections.run(lease, &Ask { namespace: &namespace, questions: &questions }).await;
                    context_rows::answer(questions, contexts);
                });
            }
            Err(error) => context_rows::answer(questions, Err(error)),
        }
    }
}
