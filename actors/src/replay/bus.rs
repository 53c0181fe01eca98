//! The bus, writing to a tape.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use throughline_schemas::{Event, SessionId, StageName, Subject, Timestamp, WorkflowId};
use tokio::time::Instant;

use super::{
    Message,
    tape::{Recording, with},
};
use crate::ports::bus::{
    AttemptLog, Broadcast, Bus, BusError, Claim, Claimed, DeadLetter, DeadLetters, Delivery, DeliveryState,
    Ends, EventLog, Inbox, Inboxes, Latest, Position, Published, Receipt, Settlement,
};

/// Answers are not awaited.
struct NoReceipt;

#[async_trait]
impl Receipt for NoReceipt {
    async fn settle(&self, _: Settlement) -> Result<(), BusError> {
        Ok(())
    }

    async fn progress(&self) -> Result<(), BusError> {
        Ok(())
    }
}

impl Message {
    /// As it was delivered, for the `delivered`-th time.
    pub(super) fn delivery(&self, delivered: u32) -> Delivery {
        Delivery {
            subject: self.subject.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            kept: None,
            sequence: self.sequence,
            delivered,
            maybe_worked_on: false,
            published_at: self.stored_at,
            received_at: Instant::now(),
            receipt: Arc::new(NoReceipt),
        }
    }
}

/// Stages are given what they work on; they do not ask a recording for it.
fn no_inbox<T>() -> Result<T, BusError> {
    Err(BusError::NotSetUp("a recording has no inboxes".to_owned()))
}

#[async_trait]
impl Inboxes for Recording {
    async fn open(&self, _: StageName) -> Result<Box<dyn Inbox>, BusError> {
        no_inbox()
    }

    async fn open_undeliverable(&self, _: StageName) -> Result<Box<dyn Inbox>, BusError> {
        no_inbox()
    }
}

#[async_trait]
impl EventLog for Recording {
    async fn publish(&self, event: &Event) -> Result<Published, BusError> {
        with(|tape| tape.published.push(event.clone()));
        Ok(Published::New)
    }

    async fn exists(&self, _: &Subject) -> Result<bool, BusError> {
        Ok(false)
    }

    async fn recorded(&self, _: &Subject) -> Result<Option<Bytes>, BusError> {
        Ok(with(|tape| tape.on_record.clone()))
    }

    async fn stored_at(&self, _: &Subject) -> Result<Option<Timestamp>, BusError> {
        Ok(None)
    }

    async fn position(&self) -> Result<Position, BusError> {
        Ok(Position::default())
    }

    async fn latest(&self, _: &SessionId, _: &WorkflowId) -> Result<Option<Latest>, BusError> {
        Ok(None)
    }

    async fn publish_again(&self, _: &Subject, _: u64) -> Result<Published, BusError> {
        Ok(Published::Already)
    }

    async fn ends_from(&self, _: u64, _: u64) -> Result<Ends, BusError> {
        Ok(Ends::default())
    }
}

#[async_trait]
impl DeadLetters for Recording {
    async fn dead_letter(&self, _: &Delivery, letter: &DeadLetter) -> Result<(), BusError> {
        with(|tape| tape.dead_letters.push(letter.clone()));
        Ok(())
    }
}

#[async_trait]
impl DeliveryState for Recording {
    async fn claim(&self, _: StageName, _: u64) -> Result<Option<Claimed>, BusError> {
        Ok(None)
    }

    async fn set_claim(&self, _: StageName, _: u64, _: &Claim, _: u64) -> Result<Published, BusError> {
        Ok(Published::New)
    }

    async fn attempt_log(&self, _: StageName, _: u64) -> Result<Option<AttemptLog>, BusError> {
        Ok(with(|tape| tape.attempt_log.clone()))
    }

    async fn keep_attempt_log(&self, _: StageName, _: u64, attempt_log: &AttemptLog) -> Result<(), BusError> {
        with(|tape| tape.attempt_log = Some(attempt_log.clone()));
        Ok(())
    }
}

#[async_trait]
impl Broadcast for Recording {
    async fn announce(&self, _: &str, _: Bytes) -> Result<(), BusError> {
        Ok(())
    }

    fn live(&self, _: &WorkflowId, _: Bytes) -> bool {
        false
    }

    async fn announced_on(&self, _: &str) -> Result<BoxStream<'static, Bytes>, BusError> {
        Ok(stream::empty().boxed())
    }
}

#[async_trait]
impl Bus for Recording {
    fn is_connected(&self) -> bool {
        true
    }
}
