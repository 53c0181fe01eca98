//! Bodies that are too large for a message.

use throughline_actors::{
    policy::memory::LARGEST_BODY_BYTES,
    ports::{
        bus::{BusError, DeadLetter, Published},
        contract::bus::sample_event,
    },
};
use throughline_schemas::{
    Event, EventData, EventType, FailureCode, SessionId, Subject, Timestamp, WorkflowId, decode,
    event::{context::Context, context::ContextRetrieved, input::Request},
};

use super::*;

const KIB: usize = 1024;

/// An event for the external data stage, about as large as its text.
fn with_text(workflow: &str, bytes: usize) -> Event {
    let mut event = sample_event(workflow, "s", "m");
    event.meta.id = format!("{workflow}.context_retrieved");
    event.data = EventData::ContextRetrieved(ContextRetrieved {
        request: Request {
            user_input: "x".repeat(bytes),
            metadata: throughline_schemas::Metadata::default(),
            input_sequence: 1,
            received_at: Timestamp::from_unix_ms(1_750_000_000_000),
            merged: Vec::new(),
            redo: None,
        },
        context: Context::default(),
    });
    event
}

/// Publishes events of these sizes, each twice, and reads them back.
pub(crate) async fn large_events_arrive(bus: &NatsBus, sizes: &[usize]) -> Vec<Event> {
    let mut published = Vec::new();
    for (n, &size) in sizes.iter().enumerate() {
        let event = with_text(&format!("w-{n}"), size);
        assert_eq!(bus.publish(&event).await.unwrap(), Published::New);
        assert_eq!(bus.publish(&event).await.unwrap(), Published::Already);
        let stored = bus.last(&event.subject()).await.unwrap().unwrap();
        assert_eq!(decode(&stored.body).unwrap(), event);
        published.push(event);
    }
    published
}

#[tokio::test]
async fn large_events_arrive_whole_and_small_ones_are_not_held_up() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let mut wanted = large_events_arrive(&bus, &[10, 60 * KIB, 64 * KIB, 100 * KIB, 3 * KIB * KIB]).await;
    let too_large = bus.publish(&with_text("w-huge", 17 * KIB * KIB)).await.err().unwrap();
    assert!(matches!(too_large, BusError::TooLarge { .. }), "{too_large}");

    // A reference to nothing, which does not say how large that is either.
    let dangling = format!("{:064x}", 7);
    let subject = Subject::new(
        EventType::ContextRetrieved,
        &SessionId::new("s").unwrap(),
        &WorkflowId::new("dangling").unwrap(),
    );
    let headers = [("Throughline-Body", dangling.as_str())];
    let dangling = publish_raw(&bus, subject.live(bus.namespace()), &headers, "{}").await;
    let last = with_text("w-last", 10);
    bus.publish(&last).await.unwrap();
    wanted.push(last);

    let mut open = inbox(&bus, StageName::External, 4).await;
    let mut got = Vec::new();
    for _ in 0..=wanted.len() {
        let delivery = next(open.as_mut()).await;
        if delivery.sequence == dangling {
            assert_eq!(delivery.body_bytes(), LARGEST_BODY_BYTES);
            assert!(matches!(bus.body(&delivery).await, Err(BusError::Unavailable { .. })));
        } else {
            // Whoever fetches a body knows before how large it is.
            assert!(delivery.body.len() <= 64 * KIB);
            let body = bus.body(&delivery).await.unwrap();
            assert_eq!(delivery.body_bytes(), body.len() as u64);
            got.push(decode(&body).unwrap());
        }
        ack(&delivery).await;
        open.grant(1).await.unwrap();
    }
    got.sort_by(|a, b| a.meta.workflow_id.cmp(&b.meta.workflow_id));
    assert!(got == wanted, "events differ");
}

#[tokio::test]
async fn a_publisher_of_input_cannot_make_us_read_objects() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let secret = with_text("w-secret", 100 * KIB);
    bus.publish(&secret).await.unwrap();
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    let reference = jetstream
        .get_stream_no_info("t_EVENTS")
        .await
        .unwrap()
        .direct_get_last_for_subject(secret.subject().live(bus.namespace()))
        .await
        .unwrap();
    assert!(reference.payload.len() < KIB, "{:?}", reference.payload);
    let name = reference.headers.get("Throughline-Body").unwrap().as_str().to_owned();
    let headers = [("Throughline-Body", name.as_str())];
    publish_raw(&bus, bus.namespace().bare_input(), &headers, "mine").await;
    let mut open = inbox(&bus, StageName::Input, 1).await;
    let delivery = next(open.as_mut()).await;
    assert_eq!(&delivery.body[..], b"mine");

    let letter = DeadLetter {
        subject: None,
        stage: StageName::Input,
        code: FailureCode::UnreadableEvent,
        error: "not JSON".to_owned(),
        at: Timestamp::from_unix_ms(1_750_000_000_000),
    };
    bus.dead_letter(&delivery, &letter).await.unwrap();
    let dead = read(&bus, ReadRequest::all_dead(bus.namespace())).await;
    assert_eq!(&dead[0].body[..], b"mine");
    let stored = read(&bus, ReadRequest::events(bus.namespace().bare_input())).await;
    assert_eq!(&stored[0].body[..], b"mine");
}

#[tokio::test]
async fn the_largest_message_that_a_publisher_can_send_can_be_dead_lettered() {
    let Some(server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let body = "y".repeat(bus.server().max_payload);
    publish_raw(&bus, bus.namespace().bare_input(), &[], body.clone()).await;
    let mut open = inbox(&bus, StageName::Input, 1).await;
    let delivery = next(open.as_mut()).await;
    let letter = DeadLetter {
        subject: None,
        stage: StageName::Input,
        code: FailureCode::InvalidInput,
        error: "too long".to_owned(),
        at: Timestamp::from_unix_ms(1_750_000_000_000),
    };
    bus.dead_letter(&delivery, &letter).await.unwrap();
    let dead = read(&bus, ReadRequest::all_dead(bus.namespace())).await;
    assert_eq!(dead.len(), 1);
    assert!(dead[0].body == body.as_bytes());
}
