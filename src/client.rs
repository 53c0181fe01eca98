//! The application's side of Throughline: publish what a user says, follow the answer as it comes, wait for the end, and look up what
//! is stored. The command line and replay use it, and so can any program that runs on tokio.
//!
//! A [`Client`] needs a connection to NATS and nothing else: no database, no provider, and of the roles of a shared server
//! that of a publisher.
//!
//! ```no_run
//! use throughline::client::{Client, Input, SessionId, Update, UserId};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("nats://127.0.0.1:4222", "throughline").await?;
//! let input = Input::new(UserId::new("demo")?, SessionId::new("session-1")?, "Where is my order?");
//! let mut turn = client.ask(input).await?;
//! while let Some(update) = turn.next().await? {
//!     match update {
//!         Update::Notice(notice) => println!("{notice:?}"),
//!         Update::End(end) => println!("{end:?}"),
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```

mod end;
mod ends;
mod frames;
mod input;
mod own_end;
mod transcript;

use std::{collections::VecDeque, pin::Pin, time::Duration};

use throughline_actors::ports::bus::BusError;
pub use throughline_schemas::{Metadata, SessionId, UserId, WorkflowId};
use throughline_schemas::{Namespace, NamespaceError};

pub use end::{End, EndError, Failed, Saved};
pub use frames::{Frames, Received};
pub use input::{Input, Message, new_workflow_id};
pub use transcript::{Ending, Notice, Transcript, Who, Whom, Words};

pub(crate) use end::{attempts_made, is_of, stored as stored_end};
pub(crate) use ends::Ends;
pub(crate) use frames::follow;
pub(crate) use own_end::{OwnEnd, Whose, whose};

pub use crate::bus::nats::{ConnectError, NatsSettings, PublishedInput, StoredEvent};

use crate::bus::nats::{NatsBus, ReadRequest};

/// How long [`Client::close`] may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// Who publishes, in events of a client that does not say.
const SOURCE: &str = "throughline/client";

/// What went wrong at the application's side. A workflow that fails is no error: its [`End`] says so.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The namespace cannot be one.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// NATS did not do what it was asked for.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The workflow has an end that this version cannot read.
    #[error(transparent)]
    End(#[from] EndError),
}

/// A connection through which an application speaks to its workflows. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    bus: NatsBus,
    source: String,
}

/// What happens to a workflow that is followed.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A piece of the answer, or what it waits for. An answer may break off and begin again: see [`Notice`].
    Notice(Notice),
    /// It has ended. The answer here is the one that counts.
    End(End),
}

impl Client {
    /// Connects to a server without credentials, for at most 10 s.
    pub async fn connect(url: &str, namespace: &str) -> Result<Self, ClientError> {
        Self::connect_with(NatsSettings::new(url, Namespace::new(namespace)?)).await
    }

    /// Connects as the settings say: credentials, TLS, time limits.
    pub async fn connect_with(settings: NatsSettings) -> Result<Self, ClientError> {
        Ok(Self::over(NatsBus::connect(settings).await?))
    }

    /// Uses a connection that is there.
    pub fn over(bus: NatsBus) -> Self {
        Self { bus, source: SOURCE.to_owned() }
    }

    /// The same, with events that name another program as their source, as in `shop/chat`.
    #[must_use]
    pub fn named(self, source: impl Into<String>) -> Self {
        Self { source: source.into(), ..self }
    }

    /// The connection, for what a client does not do.
    pub fn bus(&self) -> &NatsBus {
        &self.bus
    }

    /// Publishes, and returns when the log has it. The workflow runs whether or not anybody waits for it. Publishing the
    /// same input again runs it once. Cancelled, it may have been published.
    pub async fn publish(&self, input: Input) -> Result<PublishedInput, ClientError> {
        let message = input.encode(&self.source).map_err(BusError::from)?;
        Ok(self.bus.publish_input(&message.outgoing).await?)
    }

    /// Publishes, and follows the workflow. Dropping the [`Turn`] stops following, not the workflow.
    pub async fn ask(&self, input: Input) -> Result<Turn, ClientError> {
        let message = input.encode(&self.source).map_err(BusError::from)?;
        // Before publishing, so that nothing is missed.
        let frames = Frames::open(&self.bus, &message.workflow).await?;
        let ends = self.bus.ends_of(&message.session, &message.workflow).await?;
        let published = self.bus.publish_input(&message.outgoing).await?;
        let mut own = OwnEnd::new(&self.bus, ends, &message, published);
        Ok(Turn {
            published,
            workflow: message.workflow,
            frames,
            own: Box::pin(async move { own.wait().await }),
            transcript: Transcript::default(),
            notices: VecDeque::new(),
            ended: Ended::NotYet,
        })
    }

    /// How a workflow of this session ended; `None` if it has not ended, or is not known any more.
    pub async fn end_of(
        &self,
        session: &SessionId,
        workflow: &WorkflowId,
    ) -> Result<Option<End>, ClientError> {
        let stored = end::stored(&self.bus, session, workflow).await?;
        Ok(stored.as_ref().map(End::read).transpose()?)
    }

    /// Everything that is stored of a workflow, in the order of the log. Takes the rights of a reader.
    pub async fn events_of(&self, workflow: &WorkflowId) -> Result<Vec<StoredEvent>, ClientError> {
        let filter = self.bus.namespace().events_of_workflow(None, workflow);
        if let Some(events) = self.bus.few(&filter).await? {
            return Ok(events);
        }
        let mut reader = self.bus.read(ReadRequest::events(filter)).await?;
        let mut events = Vec::new();
        while let Some(event) = reader.next().await? {
            events.push(event);
        }
        Ok(events)
    }

    /// Closes the connection, for at most 2 s. Other clones end with it.
    pub async fn close(self) {
        self.bus.close(CLOSE_LIMIT).await;
    }
}

/// A workflow that was published here, while it is followed.
pub struct Turn {
    published: PublishedInput,
    workflow: WorkflowId,
    frames: Frames,
    /// Waits for the end of this message, and of no other with its workflow id. One future for all calls of `next`, since
    /// an end that is being compared would be lost with it.
    own: Pin<Box<dyn Future<Output = Result<StoredEvent, BusError>> + Send>>,
    transcript: Transcript,
    /// Read from frames, and not handed out.
    notices: VecDeque<Notice>,
    ended: Ended,
}

/// What is known of the end.
enum Ended {
    NotYet,
    With(StoredEvent),
    HandedOut,
}

impl Turn {
    /// The workflow.
    pub fn workflow(&self) -> &WorkflowId {
        &self.workflow
    }

    /// What the log said of the input: where it is, and whether it was there before.
    pub fn published(&self) -> PublishedInput {
        self.published
    }

    /// What happens next; `None` after the end. Notices are not stored: some may be missing, and the end has the whole
    /// answer. Waits for as long as the workflow takes. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Update>, ClientError> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(Some(Update::Notice(notice)));
            }
            match std::mem::replace(&mut self.ended, Ended::HandedOut) {
                Ended::With(end) => return Ok(Some(Update::End(End::read(&end)?))),
                Ended::HandedOut => return Ok(None),
                Ended::NotYet => self.ended = Ended::NotYet,
            }
            tokio::select! {
                received = self.frames.next() => self.observe(&received),
                end = &mut self.own => {
                    self.ended = Ended::HandedOut;
                    self.ended = Ended::With(end?);
                    // Frames are sent before the end is stored, and come over the same connection.
                    while let Some(received) = self.frames.arrived() {
                        self.observe(&received);
                    }
                }
            }
        }
    }

    /// Waits for the end, for as long as the workflow takes.
    pub async fn end(mut self) -> Result<End, ClientError> {
        let end = match self.ended {
            Ended::With(end) => end,
            Ended::NotYet | Ended::HandedOut => self.own.as_mut().await?,
        };
        Ok(End::read(&end)?)
    }

    fn observe(&mut self, received: &Received) {
        self.notices.extend(self.transcript.observe(&received.frame));
    }
}
