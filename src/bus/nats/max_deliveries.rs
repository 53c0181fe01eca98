//! Messages that the server has given up on (`max_deliver`), by stage.
//!
//! The server announces each in an advisory, once, and only to those who listen at that moment; a stream keeps the
//! advisories, and a consumer of each stage hands them out to one worker at a time. The message itself is still in the log.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::pull::{self, MessagesErrorKind},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use throughline_actors::ports::bus::{BusError, Delivery, Inbox};
use throughline_schemas::StageName;
use tokio::time::Instant;

use super::{
    Core, Names,
    error::{unavailable, unavailable_because},
    reader,
    receipt::NatsReceipt,
    requests,
};

/// How long a request for advisories waits at the server.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that a waiting request is known to it.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Wait before the server is asked again that could not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What the server says when it gives up on a message.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Advisory {
    stream: String,
    stream_seq: u64,
    deliveries: u32,
}

/// See the module.
pub(super) struct UndeliverableInbox {
    core: Arc<Core>,
    stage: StageName,
    // Boxed, or every future that reads would carry it.
    advisories: Box<pull::Stream>,
    credit: usize,
    /// Received, and its message not looked up yet: kept so that a cancelled `next` loses nothing.
    pending: Option<jetstream::Message>,
}

impl UndeliverableInbox {
    pub(super) async fn open(core: Arc<Core>, stage: StageName) -> Result<Self, BusError> {
        let (stream, name) = (core.names.advisories(), Names::dead_lettering(stage));
        let failed = |error: async_nats::Error| unavailable_because(format!("opening {name}"), error);
        let asked = core.connection.jetstream.get_consumer_from_stream::<pull::Config, _, _>(name, stream);
        let found = core.connection.complaints().unless_forbidden(name, Box::pin(asked)).await?;
        let consumer = match found {
            Ok(consumer) => consumer,
            Err(_)
                if requests::stream_is_missing(&core, stream).await
                    || requests::consumer_is_missing(&core, stream, name).await =>
            {
                return Err(BusError::NotSetUp(format!("the consumer {name} does not exist")));
            }
            Err(error) => return Err(failed(error.into())),
        };
        let asked = consumer.stream().max_messages_per_batch(1).expires(EXPIRES).heartbeat(HEARTBEAT);
        let advisories = Box::new(Box::pin(asked.messages()).await.map_err(|error| failed(error.into()))?);
        Ok(Self { core, stage, advisories, credit: 0, pending: None })
    }

    /// The message that an advisory is about; `None` if there is nothing to dead-letter.
    async fn about(&self, message: &jetstream::Message) -> Result<Option<Delivery>, BusError> {
        let stage = self.stage;
        let advisory: Advisory = match serde_json::from_slice(&message.payload) {
            Ok(advisory) => advisory,
            Err(error) => {
                tracing::warn!(%stage, %error, "an advisory of the server cannot be read");
                return Ok(None);
            }
        };
        let Some(reply) = message.reply.clone() else { return Ok(None) };
        let sequence = advisory.stream_seq;
        let Some(stored) = reader::reference_at(&self.core, &advisory.stream, sequence).await? else {
            tracing::warn!(%stage, sequence, "a message that was given up on is not in the log any more");
            return Ok(None);
        };
        let kept = reader::kept(&self.core, &stored);
        Ok(Some(Delivery {
            subject: stored.subject,
            headers: stored.headers,
            body: stored.body,
            kept,
            sequence,
            delivered: advisory.deliveries,
            maybe_worked_on: false,
            published_at: stored.stored_at,
            received_at: Instant::now(),
            receipt: Arc::new(NatsReceipt::new(Arc::clone(&self.core), reply)),
        }))
    }
}

#[async_trait]
impl Inbox for UndeliverableInbox {
    async fn grant(&mut self, n: usize) -> Result<(), BusError> {
        self.credit += n;
        Ok(())
    }

    async fn next(&mut self) -> Result<Delivery, BusError> {
        if self.credit == 0 {
            std::future::pending::<()>().await;
        }
        loop {
            if let Some(message) = &self.pending {
                match self.about(message).await {
                    Ok(Some(delivery)) => {
                        self.pending = None;
                        self.credit -= 1;
                        return Ok(delivery);
                    }
                    Ok(None) => {
                        if let Some(reply) = message.reply.clone() {
                            requests::send(&self.core, reply, Bytes::from_static(b"+TERM")).await?;
                        }
                        self.pending = None;
                    }
                    Err(error) => {
                        tracing::debug!(stage = %self.stage, %error, "cannot look up a message that was given up on");
                        tokio::time::sleep(ASK_AGAIN).await;
                        continue;
                    }
                }
            }
            match self.advisories.next().await {
                Some(Ok(message)) => self.pending = Some(message),
                Some(Err(error)) => match error.kind() {
                    MessagesErrorKind::ConsumerDeleted => {
                        let name = Names::dead_lettering(self.stage);
                        return Err(BusError::NotSetUp(format!("the consumer {name} does not exist")));
                    }
                    MessagesErrorKind::MissingHeartbeat
                    | MessagesErrorKind::Pull
                    | MessagesErrorKind::PushBasedConsumer
                    | MessagesErrorKind::RequestLimitExceeded
                    | MessagesErrorKind::NoResponders
                    | MessagesErrorKind::Other => {
                        tracing::debug!(stage = %self.stage, %error, "no advisories for now");
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                },
                None => return Err(unavailable("the stream of advisories ended")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_advisory_of_a_real_server_is_understood() {
        let told = r#"{"type":"io.nats.jetstream.advisory.v1.max_deliver","id":"Jw3m","timestamp":"2026-11-24T10:00:00Z","stream":"t_EVENTS","consumer":"stage_context","stream_seq":41,"deliveries":20}"#;
        let advisory: Advisory = serde_json::from_str(told).unwrap();
        assert_eq!(advisory, Advisory { stream: "t_EVENTS".to_owned(), stream_seq: 41, deliveries: 20 });
    }
}
