//! The event log, as a stranger with a NATS client reads it.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::SOON;

/// One stored message.
#[derive(Debug, Clone)]
pub struct Seen {
    pub sequence: u64,
    pub subject: String,
    pub headers: BTreeMap<String, String>,
    pub body: bytes::Bytes,
    /// Large, so only read when somebody asks.
    json: OnceCell<Value>,
}

/// What is needed of every event.
#[derive(serde::Deserialize)]
struct Envelope {
    workflowid: String,
}

impl Seen {
    /// `user_input_received`, `input_validated`, …, with `dead.` before it for a dead letter.
    pub fn kind(&self) -> String {
        let mut parts = self.subject.split('.').skip(1);
        let first = parts.next().unwrap_or_default();
        if first == "dead" {
            match parts.next() {
                // What was done with one is none.
                Some("done") => "done".to_owned(),
                _ => format!("dead.{}", parts.next().unwrap_or_default()),
            }
        } else {
            parts.next().unwrap_or_default().to_owned()
        }
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> &Value {
        self.json.get_or_init(|| serde_json::from_slice(&self.body).unwrap_or_default())
    }

    /// An attribute of the envelope.
    pub fn attribute(&self, name: &str) -> &str {
        self.json()[name].as_str().unwrap_or_default()
    }

    pub fn data(&self) -> &Value {
        &self.json()["data"]
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Events and dead letters from the beginning, as far as they have been read.
pub struct Log {
    receiver: mpsc::UnboundedReceiver<Seen>,
    followers: Vec<JoinHandle<()>>,
    pub all: Vec<Seen>,
    /// Where the events of a workflow stand in `all`.
    workflows: HashMap<String, Vec<usize>>,
}

impl Log {
    /// Follows the streams that hold `{ns}.v1.…` and `{ns}.dead.v1.…`.
    pub async fn follow(client: &async_nats::Client, namespace: &str) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let jetstream = jetstream::new(client.clone());
        let mut followers = Vec::new();
        for subject in [format!("{namespace}.v1.x"), format!("{namespace}.dead.v1.x")] {
            let name = jetstream.stream_by_subject(subject).await.expect("a stream");
            let stream = jetstream.get_stream(name).await.expect("the stream");
            let wanted = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
            let consumer = stream.create_consumer(wanted).await.expect("a consumer");
            let mut messages = consumer.messages().await.expect("messages");
            let sender = sender.clone();
            followers.push(tokio::spawn(async move {
                while let Some(Ok(message)) = messages.next().await {
                    if sender.send(seen(&message)).is_err() {
                        return;
                    }
                }
            }));
        }
        Self { receiver, followers, all: Vec::new(), workflows: HashMap::new() }
    }

    /// Reads on until `done`.
    pub async fn until(&mut self, what: &str, done: impl FnMut(&Self) -> bool) {
        self.until_within(SOON, what, done).await;
    }

    pub async fn until_within(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            let next = timeout_at(deadline, self.receiver.recv()).await;
            let Ok(next) = next else {
                panic!("not within {limit:?}: {what}; {} messages were read", self.all.len());
            };
            let next = next.expect("the log goes on");
            self.take(next);
        }
    }

    /// Takes what has been read so far.
    pub fn catch_up(&mut self) {
        while let Ok(next) = self.receiver.try_recv() {
            self.take(next);
        }
    }

    fn take(&mut self, next: Seen) {
        if !next.kind().starts_with("dead.")
            && let Ok(envelope) = serde_json::from_slice::<Envelope>(&next.body)
        {
            self.workflows.entry(envelope.workflowid).or_default().push(self.all.len());
        }
        self.all.push(next);
    }

    /// Reads on until each of these workflows has an end.
    pub async fn until_ended<S: AsRef<str>>(&mut self, workflows: &[S]) {
        self.until_ended_within(SOON, workflows).await;
    }

    pub async fn until_ended_within<S: AsRef<str>>(&mut self, limit: Duration, workflows: &[S]) {
        // Only the first of those without an end needs to be looked at again.
        let mut left = workflows.iter().map(AsRef::as_ref).peekable();
        let what = format!("the end of {} workflows", workflows.len());
        self.until_within(limit, &what, |log| {
            while left.next_if(|workflow| log.end(workflow).is_some()).is_some() {}
            left.peek().is_none()
        })
        .await;
    }

    /// The events of a workflow in the order of the log, without what publishers sent bare.
    pub fn events(&self, workflow: &str) -> impl Iterator<Item = &Seen> {
        self.workflows.get(workflow).into_iter().flatten().map(|&at| &self.all[at])
    }

    pub fn event(&self, workflow: &str, kind: &str) -> Option<&Seen> {
        self.events(workflow).find(|seen| seen.kind() == kind)
    }

    /// `interaction_saved` or `workflow_failed`.
    pub fn end(&self, workflow: &str) -> Option<&Seen> {
        self.events(workflow)
            .find(|seen| matches!(seen.kind().as_str(), "interaction_saved" | "workflow_failed"))
    }

    /// The answer of a workflow that must have ended well.
    pub fn answer(&self, workflow: &str) -> &str {
        let end = self.end(workflow).expect("an end");
        assert_eq!(end.kind(), "interaction_saved", "{}", end.json());
        end.data()["response"]["text"].as_str().expect("a text")
    }

    /// The data of the `workflow_failed` of a workflow that must have failed.
    pub fn failure(&self, workflow: &str) -> &Value {
        let end = self.end(workflow).expect("an end");
        assert_eq!(end.kind(), "workflow_failed", "{}", end.json());
        end.data()
    }

    pub fn dead(&self) -> impl Iterator<Item = &Seen> {
        self.all.iter().filter(|seen| seen.kind().starts_with("dead."))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        for follower in &self.followers {
            follower.abort();
        }
    }
}

fn seen(message: &jetstream::Message) -> Seen {
    let info = message.info().expect("a stored message");
    let headers = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let headers = headers.map(|(name, values)| {
        (name.to_string(), values.iter().map(async_nats::HeaderValue::as_str).collect::<Vec<_>>().join(","))
    });
    Seen {
        sequence: info.stream_sequence,
        subject: message.subject.to_string(),
        headers: headers.collect(),
        body: message.payload.clone(),
        json: OnceCell::new(),
    }
}
