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

fn sorted(delivery: &Delivery) -> Vec<(String, String)> {
    let mut headers = delivery.headers.clone();
    headers.retain(|(name, _)| name != "Nats-Pin-Id");
    headers.sort();
    headers
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
    publish_inputs(&bus, HELD - 1).await;
    // What a publisher says of a message's place is not what the server says.
    let lies = [("Nats-Sequence", "7"), ("Nats-Subject", "t.v1.x"), ("Nats-Num-Pending", "0")];
    publish_raw(&bus, bus.namespace().bare_input(), &lies, "lies").await;
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
            assert_eq!(sorted(&delivery), sorted(original));
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

/// The pinned process dies with the oldest input in its hand, and twenty thousand newer ones are settled: more than can
/// be looked at one by one.
#[tokio::test]
async fn one_input_below_many_that_are_settled_is_taken_over_at_once() {
    const SETTLED: u64 = 20_000;
    const LATER: u64 = 20;
    let Some(server) = NatsServer::start() else { return };
    let mut patient = settings(&server);
    patient.ack_wait = Duration::from_mins(5);
    let bus = NatsBus::connect(patient).await.unwrap();
    topology::setup(&bus, &limits()).await.unwrap();
    let mut still = inbox(&bus, StageName::Input, 512).await;
    publish_fast(&bus, 1 + SETTLED).await;
    let held = next(still.as_mut()).await;
    assert_eq!(held.sequence, 1);
    for n in 0..SETTLED {
        let delivery = next(still.as_mut()).await;
        assert_eq!(delivery.sequence, n + 2);
        still.grant(1).await.unwrap();
        ack(&delivery).await;
    }
    // As a process that is gone: nothing is given back, its request ends after two seconds, its pin after five more.
    std::mem::forget(still);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let other = connect(&server).await;
    let mut second = inbox(&other, StageName::Input, 512).await;
    publish_fast(&other, LATER).await;
    let began = Instant::now();
    let first = next(second.as_mut()).await;
    let took = began.elapsed();
    eprintln!("the first of {SETTLED} and one after {took:?}");
    assert_eq!((first.sequence, first.delivered), (1, 2), "what nobody has answered for comes first");
    // Of what is settled, the latest is handed out again: it cannot be told from what is not.
    let (mut last, mut again) = (1, 0);
    ack(&first).await;
    while last < 1 + SETTLED + LATER {
        second.grant(1).await.unwrap();
        let delivery = next(second.as_mut()).await;
        assert!(delivery.sequence > last, "in order: {} after {last}", delivery.sequence);
        last = delivery.sequence;
        again += u64::from(last <= 1 + SETTLED);
        ack(&delivery).await;
    }
    eprintln!("{again} were handed out once more; everything took {:?}", began.elapsed());
    assert!(again <= 4_096, "{again}");
    assert!(took < Duration::from_secs(4), "longer than a pin lives: {took:?}");
}

/// What was left takes longer than a pin lives, and meanwhile there is no slot free: whoever handles it stays pinned, or
/// the next one would begin with the same.
#[tokio::test]
async fn whoever_takes_over_slowly_stays_pinned() {
    const HELD: u64 = 100;
    const LATER: u64 = 30;
    let Some(server) = NatsServer::start() else { return };
    let mut patient = settings(&server);
    patient.ack_wait = Duration::from_mins(1);
    let bus = NatsBus::connect(patient).await.unwrap();
    topology::setup(&bus, &limits()).await.unwrap();
    let mut still = inbox(&bus, StageName::Input, 100).await;
    publish_fast(&bus, HELD).await;
    for _ in 0..HELD {
        next(still.as_mut()).await;
    }
    publish_fast(&bus, LATER).await;
    let others = [connect(&server).await, connect(&server).await];
    let mut second = inbox(&others[0], StageName::Input, 8).await;
    let mut last = next(second.as_mut()).await.sequence;
    let began = Instant::now();
    let mut standby = inbox(&others[1], StageName::Input, 8).await;
    while last < HELD + LATER {
        tokio::time::sleep(Duration::from_millis(100)).await;
        second.grant(1).await.unwrap();
        let delivery = tokio::select! {
            delivery = next(second.as_mut()) => delivery,
            other = standby.next() => panic!("the standby got {other:?}"),
        };
        assert_eq!(delivery.sequence, last + 1, "in order, and nothing twice");
        last = delivery.sequence;
        ack(&delivery).await;
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(10), "no longer than a pin lives: {took:?}");
    assert!(timeout(Duration::from_secs(1), standby.next()).await.is_err(), "the standby got something");
}

/// Publishes bare inputs, many on their way at once.
async fn publish_fast(bus: &NatsBus, count: u64) {
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    let mut left = count;
    while left > 0 {
        let some = left.min(512);
        let mut stored = Vec::new();
        for n in 0..some {
            let sent = jetstream.publish(bus.namespace().bare_input(), n.to_string().into()).await.unwrap();
            stored.push(sent.into_future());
        }
        futures_util::future::try_join_all(stored).await.unwrap();
        left -= some;
    }
}
