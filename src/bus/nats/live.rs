//! Live frames: core NATS, not stored, never waited for.

use async_nats::Subject;
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

/// Frames that may wait for the connection, of all workflows together. Far more than a connection that works ever has
/// in its queue; while it is down, the newest are dropped.
const QUEUE_FRAMES: usize = 8192;

/// Publishes frames in the order in which they are given.
pub(super) struct Live {
    queue: mpsc::Sender<(Subject, Bytes)>,
    pump: JoinHandle<()>,
}

impl Live {
    pub(super) fn start(client: async_nats::Client) -> Self {
        let (queue, mut frames) = mpsc::channel::<(Subject, Bytes)>(QUEUE_FRAMES);
        let pump = tokio::spawn(async move {
            while let Some((subject, frame)) = frames.recv().await {
                if let Err(error) = client.publish(subject, frame).await {
                    tracing::debug!(%error, "a live frame was not sent");
                }
            }
        });
        Self { queue, pump }
    }

    /// Completes when frames are not sent any more.
    pub(super) async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Whether the frame was taken.
    pub(super) fn send(&self, subject: String, frame: Bytes) -> bool {
        self.queue.try_send((subject.into(), frame)).is_ok()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.pump.abort();
    }
}
