//! The end of a message that was published here, and of no other message that has the same workflow id.

use std::time::Duration;

use throughline_actors::ports::bus::BusError;
use throughline_schemas::{
    EventData, EventType, FailureCode, SessionId, Subject, Tokens, UserId, decode, normalise,
};
use tokio::time::Instant;

use super::{end::is_of, input::Message};
use crate::bus::nats::{EndWatch, NatsBus, PublishedInput, StoredEvent};

/// When it is first looked whether the message was refused because its id belongs to another one; each time after that,
/// after twice as long, up to the second.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long an end is kept back of which nobody knows what was said: a refusal of this message would come within it.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);

/// See the module's documentation.
pub(crate) struct OwnEnd {
    bus: NatsBus,
    ends: EndWatch,
    user: UserId,
    session: SessionId,
    /// Where a conflict in the same session is told.
    refused: Option<Subject>,
    look_after: Duration,
    message: Message,
    /// An end that may be this message's, and when it is taken for that.
    kept_back: Option<(StoredEvent, Instant)>,
}

/// Whether an end is that of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Ours,
    /// Of another message with the same workflow id.
    Anothers,
    /// What was said is not stored (any more).
    Unknown,
}

/// Whose the end of a workflow is that this message names, if user and session are the message's.
pub(crate) async fn whose(bus: &NatsBus, message: &Message) -> Whose {
    let validated = Subject::new(EventType::InputValidated, &message.session, &message.workflow);
    // A log that cannot be read proves nothing.
    let stored = bus.last(&validated).await.ok().flatten();
    let event = stored.and_then(|stored| decode(&stored.body).ok());
    match event.as_ref().and_then(|event| event.data.request()) {
        Some(request) if request.user_input == normalise(&message.text) => Whose::Ours,
        Some(_) => Whose::Anothers,
        None => Whose::Unknown,
    }
}

impl OwnEnd {
    /// Of a message that was published; `ends` was opened before, so that none is missed.
    pub(crate) fn new(bus: &NatsBus, ends: EndWatch, message: &Message, published: PublishedInput) -> Self {
        let refused = published.sequence.map(|sequence| {
            let workflow = message.workflow.of_conflict(sequence);
            Subject::new(EventType::WorkflowFailed, &message.session, &workflow)
        });
        Self {
            bus: bus.clone(),
            ends,
            user: message.user.clone(),
            session: message.session.clone(),
            refused,
            look_after: LOOK_AFTER.0,
            message: message.clone(),
            kept_back: None,
        }
    }

    /// Waits for it. Not cancel-safe: an end that is being compared would be lost.
    pub(crate) async fn wait(&mut self) -> Result<StoredEvent, BusError> {
        loop {
            tokio::select! {
                end = self.ends.next() => {
                    let end = end?;
                    if self.is_refusal(&end) {
                        return Ok(end);
                    }
                    if !self.is_own(&end) {
                        continue;
                    }
                    match whose(&self.bus, &self.message).await {
                        Whose::Ours => return Ok(end),
                        Whose::Unknown if self.refused.is_none() => return Ok(end),
                        Whose::Unknown => {
                            self.kept_back.get_or_insert((end, Instant::now() + REFUSED_WITHIN));
                        }
                        Whose::Anothers => {}
                    }
                }
                () = tokio::time::sleep(self.look_after), if self.refused.is_some() => {
                    self.look_after = (self.look_after * 2).min(LOOK_AFTER.1);
                    let Some(refused) = &self.refused else { continue };
                    // Looked for again, should the server not answer.
                    if let Ok(Some(end)) = self.bus.last(refused).await {
                        return Ok(end);
                    }
                    if let Some((end, _)) = self.kept_back.take_if(|(_, until)| *until <= Instant::now()) {
                        return Ok(end);
                    }
                }
            }
        }
    }

    fn is_own(&self, end: &StoredEvent) -> bool {
        self.is_in_session(end) && is_of(end, &self.user)
    }

    /// The id belongs to a message of another session, so it can be nobody's in this one: one refusal answers all.
    fn is_refusal(&self, end: &StoredEvent) -> bool {
        let is_conflict = || match decode(&end.body).map(|event| event.data) {
            Ok(EventData::WorkflowFailed(failed)) => failed.code == FailureCode::Conflict,
            Ok(_) | Err(_) => false,
        };
        self.is_in_session(end) && is_conflict()
    }

    fn is_in_session(&self, end: &StoredEvent) -> bool {
        let session = self.session.token();
        Tokens::of(&end.subject).is_some_and(|tokens| tokens.session == Some(&session))
    }
}
