//! Attempts whose message was given to somebody else: they publish nothing and call nobody any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use throughline_actors::ports::memory::{
    model::{answer, failure},
    script::Reply,
};
use throughline_schemas::StageName;

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, Worker, reply_to};

const SECOND: Duration = Duration::from_secs(1);

/// A worker with one slot for the model whose reports do not get through; with it, how often it published an answer or
/// settled its delivery.
async fn muted(rig: &mut Rig) -> (Worker, Arc<AtomicUsize>) {
    let usual = rig.settings.clone();
    rig.settings.stages.get_mut(&StageName::Generation).unwrap().concurrency = 1;
    let worker = rig.worker().await;
    rig.settings = usual;
    let said = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&said);
    worker.gate.on(move |op, about| {
        let answers = op == Op::Publish && about.contains("response_generated");
        let settles = op == Op::Settle && about.contains("generation");
        if answers || settles {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if op == Op::Progress && about.contains("generation") { Act::Lost } else { Act::Go }
    });
    (worker, said)
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_taken_over_publishes_and_settles_nothing() {
    let mut rig = Rig::new();
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 60, Ok(answer(&reply_to(request)))));
    let (_stale, said) = muted(&mut rig).await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    let _other = rig.worker().await;
    rig.saved(&workflow).await;
    assert!((85.0..95.0).contains(&rig.seconds()), "the other's answer, not the first: {} s", rig.seconds());
    rig.pass(ACK_WAIT * 3).await;
    assert_eq!(said.load(Ordering::Relaxed), 0);
    assert_eq!(rig.models.calls(PROVIDER), 2);
    assert_eq!(rig.types(&workflow), JOURNEY);
    assert_eq!(rig.meters.count("throughline_deliveries_total", &[("outcome", "taken_over")]), 1);
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_taken_over_makes_no_further_call() {
    let mut rig = Rig::new();
    // The first attempt fails after a minute, and would be tried again.
    let calls = AtomicUsize::new(0);
    rig.models.otherwise(PROVIDER, move |request| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            let down = throughline_actors::ports::model::ModelError::Unreachable("injected".to_owned());
            Reply::After(SECOND * 60, Err(failure(down)))
        } else {
            Reply::After(SECOND, Ok(answer(&reply_to(request))))
        }
    });
    let (_stale, said) = muted(&mut rig).await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    let _other = rig.worker().await;
    rig.saved(&workflow).await;
    rig.pass(SECOND * 120).await;
    assert_eq!((rig.models.calls(PROVIDER), said.load(Ordering::Relaxed)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_else_works_on_is_published_however_late() {
    let mut rig = Rig::new();
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 60, Ok(answer(&reply_to(request)))));
    let (_only, said) = muted(&mut rig).await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert_eq!(
        (rig.models.calls(PROVIDER), said.load(Ordering::Relaxed)),
        (1, 2),
        "published and acknowledged"
    );
    rig.pass(ACK_WAIT * 3).await;
    assert_eq!(rig.models.calls(PROVIDER), 1, "what came again found it done");
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_finds_what_was_done_and_calls_nobody() {
    for stage in ["context", "external", "generation", "persistence"] {
        let (rig, worker) = Rig::running().await;
        let calls = Arc::new(AtomicUsize::new(0));
        let (count, lost) = (Arc::clone(&calls), AtomicUsize::new(0));
        worker.gate.on(move |op, about| match op {
            Op::Context | Op::Fetch | Op::Generate => {
                count.fetch_add(1, Ordering::Relaxed);
                Act::Go
            }
            Op::Settle
                if about.contains(&format!(" {stage} ")) && lost.fetch_add(1, Ordering::Relaxed) == 0 =>
            {
                Act::Lost
            }
            _ => Act::Go,
        });
        let workflow = rig.publish("w1", "s1", "where is my order, and what about the headphones?");
        rig.saved(&workflow).await;
        rig.pass(ACK_WAIT * 2).await;
        assert_eq!(rig.meters.count("throughline_redeliveries_total", &[("stage", stage)]), 1, "{stage}");
        assert_eq!(calls.load(Ordering::Relaxed), 5, "{stage}: one read, three sources, one model");
        assert_eq!((rig.types(&workflow), rig.store.interactions()), (JOURNEY.to_vec(), 1), "{stage}");
        rig.assert_idle();
    }
}

/// A process stands still between reading a claim and writing its own. When it wakes, another one has the message.
#[tokio::test(start_paused = true)]
async fn a_claim_that_comes_too_late_does_not_replace_the_one_that_is_there() {
    let mut rig = Rig::new();
    let doomed = rig.worker().await;
    doomed.gate.once(Op::Generate, "", Act::Die);
    let workflow = rig.publish("w1", "s1", "hello");
    doomed.gate.died().await;
    rig.models.otherwise(PROVIDER, |request| Reply::After(ACK_WAIT * 4, Ok(answer(&reply_to(request)))));
    let usual = rig.settings.clone();
    rig.settings.stages.get_mut(&StageName::Generation).unwrap().concurrency = 1;
    let sleeper = rig.worker().await;
    rig.settings = usual;
    sleeper.gate.on(|op, about| match op {
        Op::SetClaim if about.contains("generation") => Act::Slow(ACK_WAIT * 2),
        Op::Progress if about.contains("generation") => Act::Lost,
        _ => Act::Go,
    });
    rig.pass(ACK_WAIT + SECOND).await;
    assert_eq!(rig.models.calls(PROVIDER), 0, "it is about to claim the message");
    let _other = rig.worker().await;
    rig.saved(&workflow).await;
    rig.pass(ACK_WAIT * 5).await;
    assert_eq!(rig.models.calls(PROVIDER), 1, "whoever woke up calls nobody");
    assert_eq!(rig.types(&workflow), JOURNEY);
    rig.assert_idle();
}
