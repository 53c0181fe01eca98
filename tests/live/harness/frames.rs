//! Live frames, as a reader of `{ns}.live.>` sees them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use futures_util::StreamExt;
use throughline_schemas::{LiveFrame, LiveKind};
use tokio::task::JoinHandle;

use super::{cluster::NAMESPACE, eventually};

/// Frames by workflow, in the order of their arrival.
pub struct Frames {
    seen: Arc<Mutex<HashMap<String, Vec<LiveFrame>>>>,
    reader: JoinHandle<()>,
}

impl Frames {
    pub async fn listen(client: &async_nats::Client) -> Self {
        let mut messages = client.subscribe(format!("{NAMESPACE}.live.>")).await.expect("a subscription");
        client.flush().await.expect("the server knows of it");
        let seen = Arc::<Mutex<HashMap<String, Vec<LiveFrame>>>>::default();
        let into = Arc::clone(&seen);
        let reader = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let frame: LiveFrame = serde_json::from_slice(&message.payload).expect("a frame");
                let workflow = frame.workflow_id.as_str().to_owned();
                into.lock().expect("unharmed").entry(workflow).or_default().push(frame);
            }
        });
        Self { seen, reader }
    }

    pub fn of(&self, workflow: &str) -> Vec<LiveFrame> {
        self.seen.lock().expect("unharmed").get(workflow).cloned().unwrap_or_default()
    }

    /// The frames of a workflow up to one that `is` accepts.
    pub async fn until(&self, workflow: &str, is: impl Fn(&LiveFrame) -> bool) -> Vec<LiveFrame> {
        eventually("a live frame", async || {
            let frames = self.of(workflow);
            frames.iter().any(&is).then_some(frames)
        })
        .await
    }

    /// What somebody has read who believes the frames, at the end of a workflow that was answered. Checks on the way
    /// that nobody was told wrong: no number is missing, and no attempt's text follows another's unannounced.
    pub async fn read(&self, workflow: &str) -> String {
        let frames = self.until(workflow, |frame| frame.kind == LiveKind::Completed).await;
        let mut text = String::new();
        let mut of = None;
        let mut next = (0, 0);
        // Those of delivery 0 are about no call to a model.
        for frame in frames.iter().filter(|frame| frame.delivery > 0) {
            if next.0 != frame.delivery {
                next = (frame.delivery, 0);
                text.clear();
            }
            assert_eq!(frame.seq, next.1, "{workflow}: a number is missing: {frames:#?}");
            next.1 += 1;
            match frame.kind {
                LiveKind::Restarted => text.clear(),
                LiveKind::Text => {
                    let attempt = (frame.delivery, frame.attempt);
                    if text.is_empty() {
                        of = Some(attempt);
                    }
                    assert_eq!(of, Some(attempt), "{workflow}: texts of two attempts: {frames:#?}");
                    text.push_str(frame.text.as_deref().expect("a text"));
                }
                LiveKind::Started
                | LiveKind::Reasoning
                | LiveKind::HeldBack
                | LiveKind::Stage
                | LiveKind::AttemptFailed
                | LiveKind::FellBack
                | LiveKind::Waiting
                | LiveKind::Completed
                | LiveKind::Failed
                | LiveKind::Unrecognised => {}
            }
        }
        text
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
