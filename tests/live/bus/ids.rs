//! Ids that people choose never become anything but an address.

use std::{collections::BTreeSet, path::PathBuf};

use throughline_actors::ports::{bus::Published, contract::bus::sample_event};
use throughline_schemas::{EventType, SessionId, decode};

use futures_util::StreamExt;

use super::*;

/// Strings that break things, if this machine has them.
fn hostile() -> Option<Vec<String>> {
    let corpora = std::env::var_os("THROUGHLINE_CORPORA")
        .map_or_else(|| PathBuf::from("../shared/corpora"), PathBuf::from);
    let Ok(lines) = std::fs::read_to_string(corpora.join("naughty_strings/cases.jsonl")) else {
        left_out::say(&format!("no naughty_strings in {} (set THROUGHLINE_CORPORA)", corpora.display()));
        return None;
    };
    let text = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].as_str().unwrap().to_owned()
    };
    Some(lines.lines().map(text).collect())
}

#[tokio::test]
async fn hostile_session_ids_reach_their_own_subject_and_no_other() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let ns = bus.namespace().clone();
    let mut ids = hostile().unwrap_or_default();
    ids.extend(
        [".", "*", ">", "a b", "a\tb", "a\r\nPUB t.v1.x 0\r\n\r\n", "$JS.API.>", "é"].map(str::to_owned),
    );
    let sessions: BTreeSet<String> =
        ids.into_iter().filter(|id| SessionId::new(id.as_str()).is_ok()).collect();
    assert!(sessions.len() >= 8);
    let mut published = Vec::new();
    for (n, session) in sessions.iter().enumerate() {
        let event = sample_event(&format!("w-{n}"), session, "m");
        assert_eq!(bus.publish(&event).await.unwrap(), Published::New, "{session:?}");
        assert!(bus.exists(&event.subject()).await.unwrap());
        published.push(event);
    }
    let stored = read(&bus, ReadRequest::all_events(&ns)).await;
    assert_eq!(stored.len(), published.len());
    for (stored, event) in stored.iter().zip(&published) {
        assert_eq!(stored.subject, event.subject().live(&ns));
        assert_eq!(stored.subject.split('.').count(), 5, "{}", stored.subject);
        assert_eq!(&decode(&stored.body).unwrap(), event);
    }
    // A session's own filter sees that session's events only.
    for event in published.iter().step_by(29) {
        let filter = ns.events_of_session(Some(EventType::WorkflowFailed), &event.meta.session_id);
        let seen = read(&bus, ReadRequest::events(filter)).await;
        assert_eq!(seen.len(), 1, "{:?}", event.meta.session_id);
        assert_eq!(&decode(&seen[0].body).unwrap(), event);
    }
}

#[tokio::test]
async fn reading_and_following() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let ns = bus.namespace().clone();
    assert_eq!(read(&bus, ReadRequest::all_events(&ns)).await, []);
    // Larger than what is kept elsewhere of other events: who hears an end has all of it.
    let early = sample_event("w-0", "s", &"m".repeat(200 * 1024));
    bus.publish(&early).await.unwrap();
    let stored = bus.last(&early.subject()).await.unwrap().unwrap();
    assert_eq!(decode(&stored.body).unwrap(), early);
    assert_eq!(read(&bus, ReadRequest::all_events(&ns)).await, [stored]);

    // An end that is there already, one that comes while waiting, and all of them on the cheap subscription. What the
    // server refuses to store is heard on the log's own subjects, and not there.
    let mut published = bus.client().subscribe(ns.all_events()).await.unwrap();
    let mut all = bus.all_ends(None).await.unwrap();
    let mut past = bus.ends_of(&early.meta.session_id, &early.meta.workflow_id).await.unwrap();
    let end = timeout(SOON, past.next()).await.unwrap().unwrap();
    assert_eq!(decode(&end.body).unwrap(), early);
    let late = sample_event("w-1", "s", "m");
    let mut future = bus.ends_of(&late.meta.session_id, &late.meta.workflow_id).await.unwrap();
    assert!(timeout(Duration::from_millis(200), future.next()).await.is_err());
    bus.publish(&early).await.unwrap();
    bus.publish(&late).await.unwrap();
    let subject = late.subject().live(&ns);
    let told = timeout(SOON, published.next()).await.unwrap().unwrap();
    assert_ne!(told.subject.as_str(), subject, "what is published again is heard again");
    let end = timeout(SOON, future.next()).await.unwrap().unwrap();
    assert_eq!(decode(&end.body).unwrap(), late);
    let told = timeout(SOON, all.next()).await.unwrap().unwrap();
    assert_eq!((told.event_type(), &told), (Some(EventType::WorkflowFailed), &end));

    let since = end.stored_at;
    let later = read(&bus, ReadRequest::all_events(&ns).since(since)).await;
    assert_eq!(later.iter().map(|stored| stored.sequence).collect::<Vec<_>>(), [end.sequence]);
}
