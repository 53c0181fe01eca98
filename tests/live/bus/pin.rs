//! One process at a time admits input, and another takes over.

use tokio::time::Instant;

use super::*;

async fn publish_inputs(bus: &NatsBus, count: usize) {
    for n in 0..count {
        publish_raw(bus, bus.namespace().bare_input(), &[], n.to_string()).await;
    }
}

#[tokio::test]
async fn input_goes_to_one_process_and_another_takes_over_within_seconds() {
    let Some(server) = NatsServer::start() else { return };
    let first = set_up(&server).await;
    let second = connect(&server).await;
    let mut pinned = inbox(&first, StageName::Input, 8).await;
    publish_inputs(&first, 1).await;
    ack(&next(pinned.as_mut()).await).await;
    let mut standby = inbox(&second, StageName::Input, 8).await;
    let mut last = 1;
    // Longer than the pin lives, so that it must have been renewed.
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        publish_inputs(&first, 5).await;
        for _ in 0..5 {
            pinned.grant(1).await.unwrap();
            let delivery = tokio::select! {
                delivery = next(pinned.as_mut()) => delivery,
                other = standby.next() => panic!("the standby got {other:?}"),
            };
            assert_eq!(delivery.sequence, last + 1);
            last = delivery.sequence;
            ack(&delivery).await;
        }
        // Idle for a while, too: requests expire and are renewed.
        let idle = timeout(Duration::from_millis(900), async {
            tokio::select! {
                other = pinned.next() => panic!("there is nothing, but {other:?}"),
                other = standby.next() => panic!("there is nothing, but {other:?}"),
            }
        });
        assert!(idle.await.is_err());
    }
    let gone = Instant::now();
    drop(pinned);
    publish_inputs(&first, 3).await;
    for n in 1..=3 {
        let delivery = next(standby.as_mut()).await;
        assert_eq!(delivery.sequence, last + n);
        ack(&delivery).await;
    }
    let took = gone.elapsed();
    // A pin that is given up need not lapse, which would take five seconds.
    assert!(took < Duration::from_secs(4), "the takeover took {took:?}");
    eprintln!("takeover after {took:?}");
}

#[tokio::test]
async fn a_dropped_inbox_gives_back_what_it_holds() {
    let Some(server) = NatsServer::start() else { return };
    let mut patient = settings(&server);
    patient.ack_wait = Duration::from_mins(1);
    let bus = NatsBus::connect(patient).await.unwrap();
    topology::setup(&bus, &limits()).await.unwrap();
    let subject = |n: usize| format!("t.v1.response_generated.s.w-{n}");
    for n in 0..20 {
        publish_raw(&bus, subject(n), &[], "{}").await;
    }
    let mut first = inbox(&bus, StageName::Persistence, 20).await;
    let held = next(first.as_mut()).await;
    drop(first);
    let mut second = inbox(&bus, StageName::Persistence, 20).await;
    let began = Instant::now();
    for _ in 0..19 {
        let delivery = next(second.as_mut()).await;
        assert_ne!(delivery.sequence, held.sequence);
        ack(&delivery).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    ack(&held).await;
    bus.close(Duration::from_secs(5)).await;
}

/// The pinned process stands still with inputs in its hands. Their ack wait is a minute; nobody waits for that.
#[tokio::test]
async fn inputs_of_a_process_that_stands_still_are_taken_over_in_order() {
    const HELD: usize = 300;
    const LATER: usize = 50;
    let Some(server) = NatsServer::start() else { return };
    let mut patient = settings(&server);
    patient.ack_wait = Duration::from_mins(1);
    let bus = NatsBus::connect(patient).await.unwrap();
    topology::setup(&bus, &limits()).await.unwrap();
    let mut still = inbox(&bus, StageName::Input, HELD).await;
    publish_inputs(&bus, HELD).await;
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(next(still.as_mut()).await);
    }
    let began = Instant::now();
    for settled in [&held[7], &held[200]] {
        ack(settled).await;
    }
    for n in 0..LATER {
        let subject = format!("t.v1.user_input_received.s.w-{n}");
        publish_raw(&bus, subject, &[("X-Late", "yes")], format!("later {n}")).await;
    }
    let other = connect(&server).await;
    let mut second = inbox(&other, StageName::Input, HELD + LATER).await;
    for n in 0..HELD + LATER {
        let delivery = next(second.as_mut()).await;
        assert_eq!(delivery.sequence, n as u64 + 1, "in order, and nothing twice");
        if let Some(original) = held.get(n) {
            assert_eq!((&delivery.subject, &delivery.body), (&original.subject, &original.body));
            assert_eq!(delivery.published_at, original.published_at);
        } else {
            assert_eq!(delivery.header("x-late"), Some("yes"));
        }
        ack(&delivery).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "the takeover took {took:?}");
    // Who was given them may still answer for them.
    for delivery in &held {
        ack(delivery).await;
    }
    eprintln!("{HELD} inputs taken over after {took:?}");
}
