//! A server that dies and comes back loses and stalls nothing.

use std::collections::BTreeSet;

use throughline_actors::ports::contract::bus::sample_event;
use throughline_schemas::Event;
use tokio::time::Instant;

use super::*;

const EVENTS: usize = 300;

/// Publishes until it is stored, as a stage would.
async fn publish_until_stored(bus: &NatsBus, event: &Event) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while let Err(error) = bus.publish(event).await {
        assert!(Instant::now() < deadline, "{error}");
    }
}

#[tokio::test]
async fn killing_the_server_loses_nothing_and_stalls_nothing() {
    let Some(mut server) = NatsServer::start() else { return };
    let bus = set_up(&server).await;
    let publisher = {
        let bus = bus.clone();
        tokio::spawn(async move {
            for n in 0..EVENTS {
                let mut event = sample_event(&format!("w-{n}"), "s", "m");
                // Any type that a stage consumes will do; nobody decodes it here.
                event.data = response(&event);
                publish_until_stored(&bus, &event).await;
            }
        })
    };
    let mut open = inbox(&bus, StageName::Context, 16).await;
    let mut seen = BTreeSet::new();
    let mut kills = [EVENTS / 4, EVENTS / 2].into_iter().peekable();
    let mut longest_gap = Duration::ZERO;
    while seen.len() < EVENTS {
        let began = Instant::now();
        let delivery = next(open.as_mut()).await;
        longest_gap = longest_gap.max(began.elapsed());
        seen.insert(delivery.subject.clone());
        // Lost answers are allowed: the delivery comes again.
        let _ = delivery.receipt.settle(Settlement::Acknowledged).await;
        open.grant(1).await.unwrap();
        if kills.next_if(|&at| seen.len() >= at).is_some() {
            server.restart();
        }
    }
    publisher.await.unwrap();
    let stored = read(&bus, ReadRequest::all_events(bus.namespace())).await;
    let subjects: BTreeSet<_> = stored.iter().map(|stored| stored.subject.clone()).collect();
    assert_eq!((stored.len(), subjects.len()), (EVENTS, EVENTS));
    assert_eq!(seen, subjects);
    eprintln!("longest gap between deliveries {longest_gap:?}");
    assert!(longest_gap < Duration::from_secs(10), "{longest_gap:?}");
}

fn response(event: &Event) -> throughline_schemas::EventData {
    throughline_schemas::EventData::InputValidated(throughline_schemas::event::InputValidated {
        request: throughline_schemas::event::input::Request {
            user_input: event.meta.id.clone(),
            metadata: throughline_schemas::Metadata::default(),
            input_sequence: 1,
            received_at: event.meta.time,
            merged: Vec::new(),
            redo: None,
        },
    })
}
