//! The contract of [`Bus`], one function per promise, which panics when it is broken. Each wants a bus of its own.
#![allow(clippy::missing_panics_doc)]

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use throughline_schemas::{
    Event, EventData, EventType, FailureCode, Meta, Namespace, SessionId, StageName, StepPath, Subject,
    Timestamp, TraceParent, UserId, WorkflowFailed, WorkflowId, dead_letter, decode,
    event::generation::Attempt,
};
use tokio::{sync::mpsc, time::timeout};

use crate::ports::{
    bus::{AttemptLog, Bus, Claim, DeadLetter, Delivery, Inbox, Published, Settlement},
    log::Log,
    memory::bus::Stored,
};

mod standing;

pub use standing::*;

/// Within this something that must happen has happened. Generous, because real servers share machines.
const SOON: Duration = Duration::from_secs(10);

/// How often a bench's bus delivers one message at most.
pub const MAX_DELIVER: u32 = 6;

/// A bus with what a test needs to look at it from outside.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The bus.
    fn bus(&self) -> &dyn Bus;
    /// Its log.
    fn log(&self) -> &dyn Log;
    /// Its namespace.
    fn namespace(&self) -> &Namespace;
    /// After how long an unanswered delivery comes again.
    fn ack_wait(&self) -> Duration;
    /// Publishes as any NATS client might.
    async fn publish_raw(&self, subject: &str, headers: &[(&str, &str)], body: Bytes);
    /// Every dead letter so far.
    async fn dead_letters(&self) -> Vec<Stored>;
    /// Announcements of a topic from now on.
    async fn listen(&self, topic: &str) -> mpsc::UnboundedReceiver<Bytes>;
}

/// An event without much in it, of a type that a stage publishes.
pub fn sample_event(workflow: &str, session: &str, message: &str) -> Event {
    let workflow_id = id(WorkflowId::new(workflow));
    Event {
        meta: Meta {
            id: format!("{}.workflow_failed", workflow_id.token()),
            source: "throughline/contract".to_owned(),
            time: Timestamp::from_unix_ms(1_750_000_000_000),
            workflow_id,
            session_id: id(SessionId::new(session)),
            user_id: id(UserId::new("u")),
            step: StepPath::NONE,
            causation_id: None,
            traceparent: TraceParent::root(7, 8),
            attempt: 1,
        },
        data: EventData::WorkflowFailed(WorkflowFailed {
            code: FailureCode::Internal,
            stage: StageName::Input,
            message: message.to_owned(),
            attempts: 1,
            retryable: false,
            may_have_happened: false,
            superseded_by: None,
            earlier_deliveries: 0,
            attempt_log: Vec::new(),
            external: BTreeMap::new(),
        }),
    }
}

fn id<T, E: std::fmt::Debug>(made: Result<T, E>) -> T {
    made.unwrap_or_else(|error| unreachable!("an id of the contract suite: {error:?}"))
}

pub(super) async fn input(bench: &dyn Bench, n: usize) {
    let body = format!(r#"{{"user_id":"u","session_id":"s","user_input":"{n}"}}"#);
    bench.publish_raw(&bench.namespace().bare_input(), &[], body.into()).await;
}

pub(super) async fn open(bench: &dyn Bench, granted: usize) -> Box<dyn Inbox> {
    let opened = bench.bus().open(StageName::Input).await;
    let mut inbox = opened.unwrap_or_else(|error| unreachable!("open: {error}"));
    granted_more(inbox.as_mut(), granted).await;
    inbox
}

pub(super) async fn granted_more(inbox: &mut dyn Inbox, n: usize) {
    assert!(inbox.grant(n).await.is_ok(), "grant");
}

pub(super) async fn next(inbox: &mut dyn Inbox) -> Delivery {
    match timeout(SOON, inbox.next()).await {
        Ok(Ok(delivery)) => delivery,
        Ok(Err(error)) => unreachable!("next: {error}"),
        Err(_) => unreachable!("nothing was delivered within {SOON:?}"),
    }
}

async fn nothing(inbox: &mut dyn Inbox, within: Duration, why: &str) {
    if let Ok(delivered) = timeout(within, inbox.next()).await {
        unreachable!("{why}, but there is {delivered:?}");
    }
}

pub(super) async fn settle(delivery: &Delivery, settlement: Settlement) {
    assert!(delivery.receipt.settle(settlement).await.is_ok(), "settle");
}

/// The same event may be published any number of times; one is stored, and it exists.
pub async fn publishing_is_idempotent(bench: &dyn Bench) {
    let event = sample_event("w-1", "s-1", "first");
    let bus = bench.bus();
    assert!(matches!(bus.exists(&event.subject()).await, Ok(false)));
    assert!(matches!(bus.publish(&event).await, Ok(Published::New)));
    assert!(matches!(bus.exists(&event.subject()).await, Ok(true)));
    assert!(matches!(bus.publish(&event).await, Ok(Published::Already)));
    // Same workflow and type, other content and id: the address decides.
    let mut other = sample_event("w-1", "s-1", "second");
    "another-id".clone_into(&mut other.meta.id);
    assert!(matches!(bus.publish(&other).await, Ok(Published::Already)));
    let another_workflow = sample_event("w-2", "s-1", "third");
    assert!(matches!(bus.publish(&another_workflow).await, Ok(Published::New)));
}

/// What is stored at an address is what was published first.
pub async fn what_is_stored_can_be_read(bench: &dyn Bench) {
    let event = sample_event("w-1", "s-1", "first");
    let bus = bench.bus();
    assert!(matches!(bus.recorded(&event.subject()).await, Ok(None)));
    assert!(bus.publish(&event).await.is_ok());
    assert!(bus.publish(&sample_event("w-1", "s-1", "second")).await.is_ok());
    let stored = bus.recorded(&event.subject()).await.ok().flatten();
    assert_eq!(stored.and_then(|body| decode(&body).ok()), Some(event));
    assert!(matches!(bus.recorded(&sample_event("w-2", "s-1", "third").subject()).await, Ok(None)));
}

/// A message id chosen by somebody who publishes input cannot keep an event of ours out of the stream.
pub async fn a_foreign_message_id_hides_no_event(bench: &dyn Bench) {
    let event = sample_event("w-1", "s-1", "wanted");
    bench
        .publish_raw(
            &bench.namespace().bare_input(),
            &[("Nats-Msg-Id", &event.meta.id)],
            Bytes::from_static(b"{}"),
        )
        .await;
    assert!(matches!(bench.bus().publish(&event).await, Ok(Published::New)));
    assert!(matches!(bench.bus().exists(&event.subject()).await, Ok(true)));
}

/// A server also writes where a publisher makes it send an acknowledgement: what is no event hides none.
pub async fn what_is_no_event_hides_no_event(bench: &dyn Bench) {
    let (bus, event) = (bench.bus(), sample_event("w-1", "s-1", "wanted"));
    let subject = event.subject().live(bench.namespace());
    let acknowledgement = || Bytes::from_static(br#"{"stream":"t_EVENTS","seq":7}"#);
    for _ in 0..3 {
        bench.publish_raw(&subject, &[], acknowledgement()).await;
    }
    assert!(matches!(bus.exists(&event.subject()).await, Ok(false)));
    assert!(matches!(bus.recorded(&event.subject()).await, Ok(None)));
    assert!(matches!(bus.publish(&event).await, Ok(Published::New)));
    assert!(matches!(bus.exists(&event.subject()).await, Ok(true)));
    // Also behind the event, and with an id of ours.
    bench.publish_raw(&subject, &[("Nats-Msg-Id", "w-1.another")], acknowledgement()).await;
    assert!(matches!(bus.publish(&event).await, Ok(Published::Already)));
    let stored = bus.recorded(&event.subject()).await.ok().flatten();
    assert_eq!(stored.and_then(|body| decode(&body).ok()), Some(event));
}

/// Deliveries come in the order of the stream, with what was published.
pub async fn deliveries_arrive_in_stream_order(bench: &dyn Bench) {
    for n in 0..20 {
        input(bench, n).await;
    }
    let with_tokens =
        Subject::new(EventType::UserInputReceived, &id(SessionId::new("s")), &id(WorkflowId::new("w")))
            .live(bench.namespace());
    bench.publish_raw(&with_tokens, &[("X-Kind", "tokens")], Bytes::from_static(b"\x00\xff not JSON")).await;
    let mut inbox = open(bench, 64).await;
    let mut last = 0;
    for n in 0..20 {
        let delivery = next(inbox.as_mut()).await;
        assert!(delivery.sequence > last, "{} after {last}", delivery.sequence);
        last = delivery.sequence;
        assert_eq!(delivery.delivered, 1);
        assert_eq!(delivery.subject, bench.namespace().bare_input());
        assert!(delivery.body.ends_with(format!("\"{n}\"}}").as_bytes()), "{:?}", delivery.body);
        settle(&delivery, Settlement::Acknowledged).await;
    }
    let delivery = next(inbox.as_mut()).await;
    assert_eq!(delivery.subject, with_tokens);
    assert_eq!(delivery.header("x-kind"), Some("tokens"));
    assert_eq!(&delivery.body[..], b"\x00\xff not JSON");
}

/// An inbox hands out what was granted and no more, however much there is.
pub async fn never_more_than_granted(bench: &dyn Bench) {
    for n in 0..30 {
        input(bench, n).await;
    }
    let mut inbox = open(bench, 0).await;
    let short = bench.ack_wait() / 4;
    nothing(inbox.as_mut(), short, "nothing was granted").await;
    let mut held = Vec::new();
    for granted in [3, 1, 7] {
        granted_more(inbox.as_mut(), granted).await;
        for _ in 0..granted {
            held.push(next(inbox.as_mut()).await);
        }
        nothing(inbox.as_mut(), short / 4, "all that was granted is handed out").await;
        for delivery in held.drain(..) {
            settle(&delivery, Settlement::Acknowledged).await;
        }
    }
    // Granted before anything is published, too.
    granted_more(inbox.as_mut(), 40).await;
    for n in 11..30 {
        let delivery = next(inbox.as_mut()).await;
        assert_eq!(delivery.sequence, n + 1);
        settle(&delivery, Settlement::Acknowledged).await;
    }
    nothing(inbox.as_mut(), short, "everything is delivered").await;
    input(bench, 30).await;
    assert_eq!(next(inbox.as_mut()).await.sequence, 31);
}

/// A delivery that nobody answers comes again after the ack wait, counted, and can still be acknowledged.
pub async fn what_is_not_settled_comes_again(bench: &dyn Bench) {
    input(bench, 0).await;
    let mut inbox = open(bench, 4).await;
    let first = next(inbox.as_mut()).await;
    assert_eq!(first.delivered, 1);
    nothing(inbox.as_mut(), bench.ack_wait() / 2, "the ack wait is not over").await;
    let second = next(inbox.as_mut()).await;
    assert_eq!((second.sequence, second.delivered), (first.sequence, 2));
    assert_eq!(second.body, first.body);
    // A late answer for the first delivery counts for the message.
    settle(&first, Settlement::Acknowledged).await;
    nothing(inbox.as_mut(), bench.ack_wait() * 2, "it is acknowledged").await;
}

/// A returned delivery comes again after its delay, counted; a terminated one never.
pub async fn a_returned_delivery_waits_for_its_delay(bench: &dyn Bench) {
    input(bench, 0).await;
    let mut inbox = open(bench, 4).await;
    let delay = bench.ack_wait() / 2;
    settle(&next(inbox.as_mut()).await, Settlement::Retried { after: delay }).await;
    nothing(inbox.as_mut(), delay / 2, "its delay is not over").await;
    let second = next(inbox.as_mut()).await;
    assert_eq!(second.delivered, 2);
    settle(&second, Settlement::Retried { after: Duration::ZERO }).await;
    let third = next(inbox.as_mut()).await;
    assert_eq!(third.delivered, 3);
    settle(&third, Settlement::Terminated { reason: "no\r\nmore".to_owned() }).await;
    nothing(inbox.as_mut(), bench.ack_wait() * 2, "it is terminated").await;
}

/// Progress restarts the redelivery timer, as often as it is reported.
pub async fn progress_keeps_a_delivery_alive(bench: &dyn Bench) {
    input(bench, 0).await;
    let mut inbox = open(bench, 4).await;
    let delivery = next(inbox.as_mut()).await;
    for _ in 0..5 {
        nothing(inbox.as_mut(), bench.ack_wait() / 2, "progress is reported").await;
        assert!(delivery.receipt.progress().await.is_ok());
    }
    let again = next(inbox.as_mut()).await;
    assert_eq!(again.delivered, 2);
}

/// A dead letter keeps bytes and headers, says what was wrong, and is stored once.
pub async fn a_dead_letter_keeps_everything(bench: &dyn Bench) {
    let body = Bytes::from_static(b"\x00\xfe{ not json \r\n");
    let headers = [("X-Kept", "yes"), ("Nats-Msg-Id", "m-1")];
    bench.publish_raw(&bench.namespace().bare_input(), &headers, body.clone()).await;
    let mut inbox = open(bench, 4).await;
    let delivery = next(inbox.as_mut()).await;
    let letter = DeadLetter {
        subject: None,
        stage: StageName::Input,
        code: FailureCode::UnreadableEvent,
        error: "line one\r\nInjected: header".to_owned(),
        at: Timestamp::from_unix_ms(1_750_000_000_000),
    };
    for _ in 0..2 {
        let dead_lettered = bench.bus().dead_letter(&delivery, &letter).await;
        assert!(dead_lettered.is_ok(), "{dead_lettered:?}");
    }
    let dead = bench.dead_letters().await;
    assert_eq!(dead.len(), 1, "{dead:?}");
    let dead = &dead[0];
    assert_eq!(dead.body, body);
    let ns = bench.namespace();
    assert_eq!(dead.subject, format!("{ns}.dead.v1.user_input_received.unknown.{}", delivery.sequence));
    for (name, value) in [
        (dead_letter::STAGE, "input"),
        (dead_letter::CODE, "unreadable_event"),
        (dead_letter::ERROR, "line one  Injected: header"),
        (dead_letter::ATTEMPTS, "1"),
        (dead_letter::SUBJECT, ns.bare_input().as_str()),
        (dead_letter::SEQUENCE, delivery.sequence.to_string().as_str()),
        (dead_letter::TIME, "2025-06-15T15:06:40Z"),
        ("X-Kept", "yes"),
        ("Original-Nats-Msg-Id", "m-1"),
    ] {
        assert_eq!(dead.header(name), Some(value), "{name} of {dead:?}");
    }
    assert_eq!(dead.header("Injected"), None);
}

/// Inputs that a silent inbox holds come before newer ones to the one that takes over.
pub async fn a_process_that_takes_over_begins_with_what_was_left(bench: &dyn Bench) {
    for n in 0..4 {
        input(bench, n).await;
    }
    let mut silent = open(bench, 4).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(next(silent.as_mut()).await);
    }
    // One in the middle is settled, which changes nothing for the others.
    settle(&held[1], Settlement::Acknowledged).await;
    let mut second = open(bench, 16).await;
    for n in 4..8 {
        input(bench, n).await;
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&8) {
        let delivery = next(second.as_mut()).await;
        if !seen.contains(&delivery.sequence) {
            seen.push(delivery.sequence);
        }
        settle(&delivery, Settlement::Acknowledged).await;
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert!([1, 3, 4, 5, 6, 7, 8].iter().all(|sequence| seen.contains(sequence)), "{seen:?}");
    drop(silent);
}

/// A claim is what was last said, for each stage and message; a process that knows an older one cannot replace it, and no claim
/// is taken for the repetition of another.
pub async fn a_claim_is_what_was_last_said(bench: &dyn Bench) {
    let bus = bench.bus();
    let (stage, other) = (StageName::Generation, StageName::Context);
    let claimed = async || bus.claim(stage, 41).await.ok().flatten().unwrap_or_default();
    assert!(matches!(bus.claim(stage, 41).await, Ok(None)));
    let (mut revision, mut claim) = (0, Claim { delivery: 2, handling: 7, ..Claim::default() });
    // The same delivery is claimed and given up again and again, as messages are that kill each process that takes them over.
    for vanished in 0..3 {
        for open in [true, false] {
            let before = revision;
            claim = Claim { open, vanished, handling: claim.handling + u64::from(open), ..claim };
            assert!(
                matches!(bus.set_claim(stage, 41, &claim, revision).await, Ok(Published::New)),
                "{claim:?}"
            );
            let now = claimed().await;
            assert_eq!(now.claim, claim);
            assert_ne!(now.revision, before);
            let late = Claim { handling: 1_000 + now.revision, ..Claim::default() };
            assert!(matches!(bus.set_claim(stage, 41, &late, before).await, Ok(Published::Already)));
            assert_eq!(claimed().await, now);
            revision = now.revision;
        }
    }
    for (stage, sequence) in [(stage, 42), (stage, 4), (other, 41)] {
        assert!(matches!(bus.claim(stage, sequence).await, Ok(None)), "{stage} {sequence}");
    }
}

/// A note is what was last left, for each stage and message, beside the claim.
pub async fn a_note_is_what_was_last_left(bench: &dyn Bench) {
    let bus = bench.bus();
    let (stage, other) = (StageName::Generation, StageName::Context);
    assert!(matches!(bus.attempt_log(stage, 41).await, Ok(None)));
    let attempt = serde_json::from_value::<Attempt>(serde_json::json!({
        "provider": "openai", "model": "small", "started_at": "2026-01-01T00:00:00Z", "duration_ms": 7, "sent": true,
        "cost_usd": "0.00012", "error": "\u{3b1}: cut short",
    }));
    assert!(attempt.is_ok(), "{attempt:?}");
    for delivery in 1..3 {
        let attempts = attempt.iter().flat_map(|one| vec![one.clone(); delivery as usize * 30]).collect();
        let attempt_log = AttemptLog { delivery, unknown: 1, attempts };
        assert!(bus.keep_attempt_log(stage, 41, &attempt_log).await.is_ok());
        assert_eq!(bus.attempt_log(stage, 41).await.ok().flatten().as_ref(), Some(&attempt_log));
    }
    assert!(matches!(bus.claim(stage, 41).await, Ok(None)));
    let claim = Claim { delivery: 3, open: true, ..Claim::default() };
    assert!(bus.set_claim(stage, 41, &claim, 0).await.is_ok());
    assert!(
        bus.attempt_log(stage, 41)
            .await
            .is_ok_and(|attempt_log| attempt_log.is_some_and(|attempt_log| attempt_log.delivery == 2))
    );
    for (stage, sequence) in [(stage, 42), (stage, 4), (other, 41)] {
        assert!(matches!(bus.attempt_log(stage, sequence).await, Ok(None)), "{stage} {sequence}");
    }
}

/// A message that was delivered as often as is allowed is handed to the stage that dead-letters, with all that it had, until its
/// dead-lettering is settled; and to nobody else again. The bench's bus allows [`MAX_DELIVER`] deliveries.
pub async fn what_is_given_up_on_is_handed_over_for_dead_lettering(bench: &dyn Bench) {
    let headers = [("X-Kept", "yes")];
    let body = Bytes::from_static(b"\x00 poison");
    bench.publish_raw(&bench.namespace().bare_input(), &headers, body.clone()).await;
    let mut inbox = open(bench, 64).await;
    for n in 1..=MAX_DELIVER {
        let delivery = next(inbox.as_mut()).await;
        assert_eq!(delivery.delivered, n);
        settle(&delivery, Settlement::Retried { after: Duration::ZERO }).await;
    }
    let opened = bench.bus().open_undeliverable(StageName::Input).await;
    let mut undeliverable = opened.unwrap_or_else(|error| unreachable!("open_undeliverable: {error}"));
    granted_more(undeliverable.as_mut(), 4).await;
    // Somebody has to ask for more, or the server does not notice.
    let given_up = tokio::select! {
        given_up = next(undeliverable.as_mut()) => given_up,
        again = next(inbox.as_mut()) => unreachable!("it came again: {again:?}"),
    };
    assert_eq!((given_up.sequence, given_up.delivered), (1, MAX_DELIVER));
    assert_eq!((&given_up.body, given_up.header("x-kept")), (&body, Some("yes")));
    assert_eq!(given_up.subject, bench.namespace().bare_input());
    // a dead-lettering that is not finished is handed over again, as what it was.
    settle(&given_up, Settlement::Retried { after: Duration::ZERO }).await;
    let again = next(undeliverable.as_mut()).await;
    assert_eq!((again.sequence, again.delivered, &again.body), (1, MAX_DELIVER, &body));
    settle(&again, Settlement::Terminated { reason: "buried".to_owned() }).await;
    nothing(undeliverable.as_mut(), bench.ack_wait() * 2, "it is buried").await;
    nothing(inbox.as_mut(), bench.ack_wait() / 4, "it is buried").await;
    let other = bench.bus().open_undeliverable(StageName::Context).await;
    let mut other = other.unwrap_or_else(|error| unreachable!("open_undeliverable: {error}"));
    granted_more(other.as_mut(), 4).await;
    nothing(other.as_mut(), bench.ack_wait() / 4, "another stage's messages are its own").await;
}

/// Several inboxes of one stage share its deliveries; each message goes to one of them.
pub async fn a_stage_is_shared_by_its_inboxes(bench: &dyn Bench) {
    const MESSAGES: usize = 40;
    let stage = StageName::Persistence;
    let ns = bench.namespace();
    for n in 0..MESSAGES {
        let workflow = id(WorkflowId::new(format!("w-{n}")));
        let subject = Subject::new(EventType::ResponseGenerated, &id(SessionId::new("s")), &workflow);
        bench.publish_raw(&subject.live(ns), &[], Bytes::from_static(b"{}")).await;
    }
    let mut inboxes = Vec::new();
    for _ in 0..2 {
        let opened = bench.bus().open(stage).await;
        let mut inbox = opened.unwrap_or_else(|error| unreachable!("open: {error}"));
        granted_more(inbox.as_mut(), MESSAGES / 2).await;
        inboxes.push(inbox);
    }
    let mut seen = std::collections::BTreeSet::new();
    for inbox in &mut inboxes {
        for _ in 0..MESSAGES / 2 {
            let delivery = next(inbox.as_mut()).await;
            assert!(seen.insert(delivery.sequence), "{} came twice", delivery.sequence);
            settle(&delivery, Settlement::Acknowledged).await;
        }
    }
    assert_eq!(seen.len(), MESSAGES);
}

/// What is announced reaches every listener of that topic; no listener is no error.
pub async fn announcements_reach_listeners(bench: &dyn Bench) {
    let bus = bench.bus();
    assert!(bus.announce("breaker", Bytes::from_static(b"unheard")).await.is_ok());
    let mut heard = bench.listen("breaker").await;
    assert!(bus.announce("other", Bytes::from_static(b"not this")).await.is_ok());
    assert!(bus.announce("breaker", Bytes::from_static(b"open")).await.is_ok());
    let announcement = timeout(SOON, heard.recv()).await;
    assert_eq!(announcement.ok().flatten().as_deref(), Some(b"open".as_slice()));
    assert!(bus.is_connected());
}
