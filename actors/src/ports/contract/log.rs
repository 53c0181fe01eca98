//! The contract of [`crate::ports::log::Log`]: what is needed is not free, and only what lies below is removed.
#![allow(clippy::missing_panics_doc)]

use std::time::Duration;

use bytes::Bytes;
use throughline_schemas::{EventType, StageName, Subject, Timestamp, WorkflowId};

use super::bus::{Bench, MAX_DELIVER, granted_more, input, next, open, sample_event, settle};
use crate::ports::{
    bus::Settlement,
    log::{Fill, Purge},
};

async fn fill(bench: &dyn Bench) -> Fill {
    let filled = bench.log().fill().await;
    filled.unwrap_or_else(|error| unreachable!("fill: {error}"))
}

async fn purge(bench: &dyn Bench, before: u64) -> u64 {
    let purge = Purge { before, at: Timestamp::from_unix_ms(0), archive: None };
    let purged = bench.log().purge(&purge).await;
    purged.unwrap_or_else(|error| unreachable!("purge: {error}"))
}

/// What a stage has not settled is needed, given out or not; what no stage consumes is not.
pub async fn what_is_not_settled_is_needed(bench: &dyn Bench) {
    assert_eq!((fill(bench).await.needed, fill(bench).await.first), (None, 1), "of nothing");
    for n in 0..3 {
        input(bench, n).await;
    }
    assert!(bench.bus().publish(&sample_event("w", "s", "an end")).await.is_ok());
    let needed = async || fill(bench).await.needed;
    assert_eq!(needed().await, Some((1, StageName::Input)));
    let mut inbox = open(bench, 8).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(inbox.as_mut()).await);
    }
    assert_eq!(needed().await, Some((1, StageName::Input)), "given out");
    // Acknowledgements are not waited for.
    let soon = async |expected| {
        for _ in 0..100 {
            if needed().await == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(needed().await, expected);
    };
    settle(&held[1], Settlement::Acknowledged).await;
    settle(&held[0], Settlement::Acknowledged).await;
    soon(Some((3, StageName::Input))).await;
    settle(&held[2], Settlement::Acknowledged).await;
    soon(None).await;
    let filled = fill(bench).await;
    assert_eq!((filled.first, filled.last, filled.messages), (1, 4, 4), "{filled:?}");
    assert_eq!(bench.log().last().await.ok(), Some(4));
    assert!(filled.bytes > 0);
}

/// Only what lies below is removed, once, and sequences go on.
pub async fn only_what_lies_below_is_removed(bench: &dyn Bench) {
    for n in 0..4 {
        input(bench, n).await;
    }
    assert_eq!(purge(bench, 3).await, 2);
    assert_eq!(purge(bench, 3).await, 0);
    let filled = fill(bench).await;
    assert_eq!((filled.first, filled.last, filled.messages), (3, 4, 2));
    let mut inbox = open(bench, 8).await;
    assert_eq!(next(inbox.as_mut()).await.sequence, 3);
    assert_eq!(purge(bench, 100).await, 2, "beyond the end");
    let filled = fill(bench).await;
    assert_eq!((filled.messages, filled.bytes), (0, 0));
    assert!(filled.first == filled.last + 1, "{filled:?}");
    let young = bench.log().first_within(Duration::from_hours(1)).await;
    assert!(young.is_ok_and(|young| young == filled.first), "the next one");
    assert!(bench.log().age_at(1).await.is_ok_and(|age| age.is_none()));
}

/// Later than any message.
const IN_2100_MS: i64 = 4_102_444_800_000;

/// Results of workflows whose end is in the log may go from the middle of it, and ends that are old; inputs and what is
/// open stay.
pub async fn what_is_finished_can_be_removed_from_behind_what_is_needed(bench: &dyn Bench) {
    input(bench, 0).await;
    let end = sample_event("ended", "s", "an end");
    let subject = |event_type, workflow: &str| {
        let workflow = WorkflowId::new(workflow).unwrap_or_else(|error| unreachable!("an id: {error:?}"));
        Subject::new(event_type, &end.meta.session_id, &workflow).live(bench.namespace())
    };
    for (event_type, workflow) in [
        (EventType::InputValidated, "open"),
        (EventType::InputValidated, "ended"),
        (EventType::ContextRetrieved, "ended"),
    ] {
        let body = format!(r#"{{"type":"{event_type}","workflowid":"{workflow}"}}"#);
        bench.publish_raw(&subject(event_type, workflow), &[], body.into()).await;
    }
    assert!(bench.bus().publish(&end).await.is_ok());
    // What stands on the subject of an end need not be one.
    let forged = Bytes::from_static(br#"{"stream":"t_EVENTS","seq":7}"#);
    bench.publish_raw(&subject(EventType::WorkflowFailed, "open"), &[], forged).await;
    let log = bench.log();
    let finished_before = async |from, bytes, ended_before| {
        log.finished_from(from, bytes, Timestamp::from_unix_ms(ended_before)).await.unwrap_or_default()
    };
    let finished = async |from, bytes| finished_before(from, bytes, 0).await;
    assert_eq!(finished(1, u64::MAX).await, [3, 4]);
    assert_eq!(finished(4, u64::MAX).await, [4]);
    assert_eq!(finished(1, 0).await, [0_u64; 0]);
    assert_eq!(finished_before(1, u64::MAX, IN_2100_MS).await, [3, 4, 5], "the end, too");
    let before = fill(bench).await;
    assert!(log.remove(&[3, 4]).await.is_ok_and(|removed| removed == 2));
    assert!(log.remove(&[3, 4]).await.is_ok_and(|removed| removed == 0), "a second time");
    let after = fill(bench).await;
    assert_eq!((after.first, after.last, after.messages), (1, 6, 4));
    assert!(after.bytes < before.bytes && after.needed == before.needed, "{after:?}");
    assert_eq!(finished(1, u64::MAX).await, [0_u64; 0]);
}

/// The first message that is young enough is found among many.
pub async fn ages_are_those_of_the_log(bench: &dyn Bench) {
    for n in 0..20 {
        input(bench, n).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    for n in 20..30 {
        input(bench, n).await;
    }
    let log = bench.log();
    assert!(log.first_within(Duration::from_millis(500)).await.is_ok_and(|first| first == 21));
    assert!(log.first_within(Duration::from_hours(1)).await.is_ok_and(|first| first == 1));
    assert!(log.first_within(Duration::ZERO).await.is_ok_and(|first| first > 20));
    let age = log.age_at(1).await.ok().flatten().unwrap_or_default();
    assert!(age >= Duration::from_millis(600) && age < Duration::from_secs(20), "{age:?}");
    assert!(log.age_at(21).await.is_ok_and(|young| young.is_some_and(|young| young < age)));
}

/// A message that the server has given up on is needed until it is dead-lettered.
pub async fn what_waits_to_be_dead_lettered_is_needed(bench: &dyn Bench) {
    bench.publish_raw(&bench.namespace().bare_input(), &[], Bytes::from_static(b"poison")).await;
    input(bench, 1).await;
    let mut inbox = open(bench, 64).await;
    let (mut poison, mut other) = (0, false);
    while poison < MAX_DELIVER || !other {
        let delivery = next(inbox.as_mut()).await;
        if delivery.sequence == 1 {
            poison += 1;
            settle(&delivery, Settlement::Retried { after: Duration::ZERO }).await;
        } else {
            other = true;
            settle(&delivery, Settlement::Acknowledged).await;
        }
    }
    let opened = bench.bus().open_undeliverable(StageName::Input).await;
    let mut undeliverable = opened.unwrap_or_else(|error| unreachable!("open_undeliverable: {error}"));
    granted_more(undeliverable.as_mut(), 4).await;
    let given_up = tokio::select! {
        given_up = next(undeliverable.as_mut()) => given_up,
        again = next(inbox.as_mut()) => unreachable!("it came again: {again:?}"),
    };
    assert_eq!(fill(bench).await.needed, Some((1, StageName::Input)));
    settle(&given_up, Settlement::Terminated { reason: "buried".to_owned() }).await;
    for _ in 0..100 {
        if fill(bench).await.needed.is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(fill(bench).await.needed, None, "it is buried");
}
