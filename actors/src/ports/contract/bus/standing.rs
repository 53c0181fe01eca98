//! What the log tells about itself: where a workflow stands, when that was, and which workflows have ended.

use std::time::Duration;

use bytes::Bytes;
use throughline_schemas::{EventType, Subject, decode};

use super::{Bench, input, sample_event};

/// Ages are the server's: what time it is there, and when an event was stored.
pub async fn the_log_tells_where_a_workflow_stands_and_since_when(bench: &dyn Bench) {
    let bus = bench.bus();
    let event = sample_event("w-1", "s-1", "first");
    let (session, workflow) = (&event.meta.session_id, &event.meta.workflow_id);
    assert!(matches!(bus.latest(session, workflow).await, Ok(None)));
    assert!(matches!(bus.stored_at(&event.subject()).await, Ok(None)));
    input(bench, 1).await;
    assert!(bus.publish(&event).await.is_ok());
    let Ok(Some(latest)) = bus.latest(session, workflow).await else { unreachable!("it has an event") };
    assert_eq!(latest.key, EventType::WorkflowFailed.into());
    let Ok(stored_at) = bus.stored_at(&event.subject()).await else { unreachable!("it is stored") };
    assert_eq!(stored_at, Some(latest.stored_at));
    let other = Subject::new(EventType::InputValidated, session, workflow);
    assert!(matches!(bus.stored_at(&other).await, Ok(None)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Ok(position) = bus.position().await else { unreachable!("it answers") };
    assert_eq!(position.last, latest.sequence);
    let Some(now) = position.now else { unreachable!("it tells the time") };
    let age = now.ms_since(latest.stored_at);
    assert!((40..60_000).contains(&age), "{age} ms");
}

/// Ends come in the order of the log, page by page, each once; how far a page has read is told.
pub async fn ends_come_page_by_page_in_the_order_of_the_log(bench: &dyn Bench) {
    let bus = bench.bus();
    let empty = bus.ends_from(1, 2).await.unwrap_or_default();
    assert!(empty.ends.is_empty());
    for n in 0..5 {
        input(bench, n).await;
        let event = sample_event(&format!("w-{n}"), "s-1", "first");
        assert!(bus.publish(&event).await.is_ok());
    }
    input(bench, 9).await;
    let Ok(position) = bus.position().await else { unreachable!("it answers") };
    let (mut found, mut from, mut pages) = (Vec::new(), 1, 0);
    while from <= position.last {
        let Ok(page) = bus.ends_from(from, 2).await else { unreachable!("it answers") };
        assert!(page.ends.len() <= 4 && page.read_to >= from, "{page:?}");
        found.extend(page.ends);
        from = page.read_to + 1;
        pages += 1;
    }
    let id = |body: &Bytes| decode(body).map(|event| event.meta.workflow_id.to_string()).unwrap_or_default();
    assert_eq!(found.iter().map(id).collect::<Vec<_>>(), ["w-0", "w-1", "w-2", "w-3", "w-4"]);
    assert!(pages >= 3, "{pages}");
}
