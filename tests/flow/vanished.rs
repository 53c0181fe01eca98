//! Messages that kill the whole process, or that nobody ever answers for: they are dead-lettered, and nobody else is.

use std::time::Duration;

use throughline_actors::ports::{
    bus::{Delivery, Inboxes, Settlement},
    memory::{bus::MemoryBus, model::answer, script::Reply},
};
use throughline_schemas::{EventData, FailureCode, Namespace, StageName, dead_letter};

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, reply_to};

const SECOND: Duration = Duration::from_secs(1);
/// One death before anything is on record, and as many as are allowed.
const DEATHS_AT_MOST: usize = 6;

/// Starts workers, each of which dies as soon as it touches the poison, until one lives for ten minutes.
async fn die_of_it(rig: &Rig, op: Op) -> (usize, crate::harness::Worker) {
    for deaths in 0..=DEATHS_AT_MOST {
        let worker = rig.worker().await;
        worker
            .gate
            .on(move |at, about| if at == op && about.contains("poison") { Act::Die } else { Act::Go });
        if tokio::time::timeout(SECOND * 600, worker.gate.died()).await.is_err() {
            return (deaths, worker);
        }
    }
    panic!("more than {DEATHS_AT_MOST} processes died");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_kills_its_process_is_dead_lettered_and_takes_nobody_along() {
    let rig = Rig::new();
    // Slower than the poison, so that they are always in hand when it strikes.
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 5, Ok(answer(&reply_to(request)))));
    let before: Vec<_> = (0..10).map(|n| rig.publish(&format!("a{n}"), &format!("s{n}"), "hello")).collect();
    let poison = rig.publish("poison", "sick", "poison");
    let behind = rig.publish("behind", "sick", "what about me?");
    let after: Vec<_> = (0..10).map(|n| rig.publish(&format!("b{n}"), &format!("s{n}"), "hello")).collect();
    let (deaths, _worker) = die_of_it(&rig, Op::Generate).await;
    let failed = rig.failed(&poison).await;
    assert_eq!((failed.code, failed.stage), (FailureCode::Poison, StageName::Generation), "{failed:?}");
    assert!(failed.message.contains("vanished"), "{}", failed.message);
    for workflow in before.iter().chain(&after).chain([&behind]) {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}");
    }
    assert_eq!(rig.bus.dead_letters().len(), 1, "nobody else is blamed");
    assert_eq!(deaths, DEATHS_AT_MOST);
    rig.pass(ACK_WAIT * 3).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn what_kills_the_process_that_admits_it_holds_no_session_up_for_ever() {
    let rig = Rig::new();
    let poison = rig.publish("poison", "sick", "poison");
    let behind = rig.publish("behind", "sick", "hello");
    let (_, _worker) = die_of_it(&rig, Op::Admit).await;
    assert_eq!(rig.failed(&poison).await.code, FailureCode::Poison);
    rig.saved(&behind).await;
}

/// Delivers the stage's next message `times` times, handing it back each time.
async fn hand_back(rig: &Rig, stage: StageName, times: u32) {
    let mut inbox = rig.bus.open(stage).await.unwrap();
    inbox.grant(times as usize).await.unwrap();
    for n in 1..=times {
        let delivery: Delivery = inbox.next().await.unwrap();
        assert_eq!(delivery.delivered, n);
        delivery.receipt.settle(Settlement::Retried { after: Duration::ZERO }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_back_many_times_is_no_poison_when_it_panics_once() {
    let rig = Rig::new();
    let workflow = rig.publish("w1", "s1", "hello");
    hand_back(&rig, StageName::Input, 50).await;
    let worker = rig.worker().await;
    worker.gate.once(Op::Admit, "w1", Act::Panic);
    rig.saved(&workflow).await;
    assert_eq!(rig.types(&workflow), JOURNEY);
    assert!(rig.bus.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn workers_that_are_killed_for_other_reasons_make_no_poison() {
    let rig = Rig::new();
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 5, Ok(answer(&reply_to(request)))));
    let workflows: Vec<_> =
        (0..20).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for _ in 0..5 {
        let worker = rig.worker().await;
        rig.pass(ACK_WAIT + SECOND).await;
        worker.crash();
    }
    let _last = rig.worker().await;
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    assert!(rig.bus.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_server_gives_up_on_is_dead_lettered_once_however_many_workers_run() {
    const MAX_DELIVER: u32 = 3;
    for stage in [StageName::Input, StageName::Context, StageName::Persistence] {
        let mut rig = Rig::new();
        rig.bus = MemoryBus::with_limits(Namespace::new("throughline").unwrap(), ACK_WAIT, MAX_DELIVER);
        let poison = rig.publish("w1", "s1", "hello");
        let behind = rig.publish("w2", "s1", "what about me?");
        // The stages before it run somewhere.
        let all = rig.settings.stages.clone();
        rig.settings.stages.retain(|name, _| *name < stage);
        let earlier = rig.worker().await;
        rig.pass(SECOND).await;
        hand_back(&rig, stage, MAX_DELIVER).await;
        earlier.engine.drain(SECOND).await;
        rig.settings.stages = all;
        let _workers = [rig.worker().await, rig.worker().await, rig.worker().await];
        let end = rig.ended(&poison).await.data;
        // Whoever takes over the admission looks at everything that was left, exhausted or not: the turn may have begun
        // before its input is dead-lettered, and goes on then.
        let has_begun = stage == StageName::Input && matches!(end, EventData::InteractionSaved(_));
        if !has_begun {
            let failed = rig.failed(&poison).await;
            assert_eq!(
                (failed.code, failed.stage, failed.attempts),
                (FailureCode::Poison, stage, MAX_DELIVER)
            );
        }
        rig.saved(&behind).await;
        rig.pass(ACK_WAIT * 3).await;
        let dead = rig.bus.dead_letters();
        assert_eq!(dead.len(), 1, "{stage}");
        assert_eq!(dead[0].header(dead_letter::STAGE), Some(stage.as_str()));
        assert_eq!(dead[0].header(dead_letter::CODE), Some("poison"));
        assert_eq!(dead[0].header(dead_letter::ATTEMPTS), Some("3"));
        let ends: Vec<_> = rig.types(&poison).into_iter().filter(|event| event.is_end()).collect();
        assert_eq!(ends.len(), 1, "{stage}: {ends:?}");
        if stage != StageName::Input {
            assert_eq!(rig.models.calls(PROVIDER), if stage == StageName::Persistence { 2 } else { 1 });
        }
        rig.assert_idle();
    }
}
