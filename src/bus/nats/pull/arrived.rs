//! From a message on the wire to a delivery.

use std::sync::Arc;

use async_nats::Message;
use throughline_actors::ports::bus::{Delivery, Settlement};
use throughline_schemas::{EventType, MAJOR, Namespace, StageName, Timestamp};
use tokio::time::Instant;

use crate::bus::nats::{Core, headers, large_bodies, receipt::NatsReceipt};

/// What the reply subject of every delivery begins with.
const ACK_PREFIX: &str = "$JS.ACK.";

/// Whether a message is a consumer's delivery. A publisher may put a status into its headers, so that tells nothing;
/// the server's own words for the inbox have no reply subject.
pub(super) fn is_delivery(message: &Message) -> bool {
    message.reply.as_deref().is_some_and(|reply| reply.starts_with(ACK_PREFIX))
}

/// The stream sequence from which on nothing was given to anybody else before this message was: its own, or no limit
/// if it was delivered before.
pub(super) fn first_delivery(message: &Message) -> Option<u64> {
    let place = ReplySubject::parse(message.reply.as_deref()?)?;
    Some(if place.delivered == 1 { place.sequence } else { u64::MAX })
}

/// A message as it arrived.
pub(super) enum Arrived {
    /// The stage's. A large body is still in the object store.
    Own(Delivery),
    /// It is not on a subject of this stage.
    Foreign(Delivery),
}

/// Reads a message; `None` if it is no delivery of a consumer.
pub(super) fn read(
    core: &Arc<Core>,
    stage: StageName,
    (message, received_at): (Message, Instant),
) -> Option<Arrived> {
    let Some(reply) = message.reply else {
        tracing::warn!(subject = %message.subject, "a message that is no delivery arrived in an inbox");
        return None;
    };
    let Some(info) = ReplySubject::parse(&reply) else {
        tracing::warn!(%reply, "a delivery cannot be told apart by its reply subject");
        return None;
    };
    let headers = headers::pairs(message.headers.as_ref());
    let event_type = stage.consumes();
    let kept = if super::is_ours(event_type) { large_bodies::kept(&headers) } else { None };
    let delivery = Delivery {
        subject: message.subject.into_string(),
        headers,
        body: message.payload,
        kept,
        sequence: info.sequence,
        delivered: info.delivered,
        maybe_worked_on: false,
        published_at: info.published_at,
        received_at,
        receipt: Arc::new(NatsReceipt::new(Arc::clone(core), reply)),
    };
    let is_own = is_of(&core.settings.namespace, event_type, &delivery.subject);
    Some(if is_own { Arrived::Own(delivery) } else { Arrived::Foreign(delivery) })
}

/// Lets go of a delivery that is none of this stage's business. A log that has lost messages gives their sequences to
/// others, and its consumers remember what they had not acknowledged by sequence only.
pub(super) async fn decline(delivery: Delivery) {
    tracing::warn!(
        sequence = delivery.sequence,
        subject = delivery.subject,
        "a delivery of another stage is let go"
    );
    if let Err(error) = delivery.receipt.settle(Settlement::Acknowledged).await {
        tracing::debug!(%error, "it comes again after the ack wait");
    }
}

/// Whether a subject is one of an event type: `{ns}.v1.{type}`, bare or with tokens behind it.
fn is_of(ns: &Namespace, event_type: EventType, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    tokens.next() == Some(ns.as_str())
        && tokens.next().and_then(|version| version.strip_prefix('v')?.parse().ok()) == Some(MAJOR)
        && tokens.next() == Some(event_type.as_str())
}

/// What a delivery's reply subject says.
#[derive(Debug, PartialEq, Eq)]
struct ReplySubject {
    sequence: u64,
    delivered: u32,
    published_at: Timestamp,
}

impl ReplySubject {
    /// Reads `$JS.ACK.{stream}.{consumer}.{delivered}.{sequence}.{consumer sequence}.{nanoseconds}.{pending}`, or
    /// the longer form with a domain and an account before the stream.
    fn parse(reply: &str) -> Option<Self> {
        const SHORT_TOKENS: usize = 7;
        const DOMAIN_AND_ACCOUNT: usize = 2;
        let rest = reply.strip_prefix(ACK_PREFIX)?;
        let count = rest.bytes().filter(|&b| b == b'.').count() + 1;
        let stream_at = if count > SHORT_TOKENS { DOMAIN_AND_ACCOUNT } else { 0 };
        let mut tokens = rest.split('.').skip(stream_at + 2);
        let delivered = tokens.next()?.parse().ok()?;
        let sequence = tokens.next()?.parse().ok()?;
        let _consumer_sequence = tokens.next()?;
        let nanos: i128 = tokens.next()?.parse().ok()?;
        let published_at = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?.into();
        Some(Self { sequence, delivered, published_at })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_subject_belongs_to_one_type() {
        let ns = Namespace::new("t").unwrap();
        let of = |subject: &str| is_of(&ns, EventType::InputValidated, subject);
        assert!(of("t.v1.input_validated") && of("t.v1.input_validated.s.w"));
        for other in
            ["t.v1.input_validated_too.s.w", "t.v2.input_validated.s.w", "u.v1.input_validated.s.w", "t"]
        {
            assert!(!of(other), "{other}");
        }
    }

    #[test]
    fn both_forms_of_the_reply_subject_say_the_same() {
        let expected = Some(ReplySubject {
            sequence: 41,
            delivered: 3,
            published_at: Timestamp::from_unix_ms(1_795_308_666_763),
        });
        for reply in [
            "$JS.ACK.t_EVENTS.stage_input.3.41.7.1795308666763000000.12",
            "$JS.ACK._.hash.t_EVENTS.stage_input.3.41.7.1795308666763000000.12",
            "$JS.ACK.hub.hash.t_EVENTS.stage_input.3.41.7.1795308666763000000.12.random",
        ] {
            assert_eq!(ReplySubject::parse(reply), expected, "{reply}");
        }
        for bad in ["", "_INBOX.x", "$JS.ACK.a.b.c.d.e.f.g", "$JS.ACK.a.b.1"] {
            assert_eq!(ReplySubject::parse(bad), None, "{bad}");
        }
    }
}
