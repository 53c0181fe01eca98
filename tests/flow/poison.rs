//! Messages that make a worker panic: they hurt nobody else, and end with a reason.

use std::time::Duration;

use throughline_actors::ports::memory::{model::answer, script::Reply};
use throughline_schemas::{EventType, FailureCode, StageName, dead_letter};

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, Worker, question};

fn panics(worker: &Worker, at: Op, marker: &'static str) {
    worker.gate.on(move |op, about| if op == at && about.contains(marker) { Act::Panic } else { Act::Go });
}

async fn isolates(at: Op, stage: StageName) {
    let (rig, worker) = Rig::running().await;
    panics(&worker, at, "poison");
    let before: Vec<_> = (0..10).map(|n| rig.publish(&format!("a{n}"), &format!("s{n}"), "hello")).collect();
    let poison = rig.publish("poison", "sick-poison", "poison");
    let behind = rig.publish("behind", "sick-poison", "what about me?");
    let after: Vec<_> = (0..10).map(|n| rig.publish(&format!("b{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in before.iter().chain(&after) {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY, "{workflow}");
    }
    assert!(rig.seconds() < 0.5, "{stage}: the others are served at once, not after {} s", rig.seconds());

    let failed = rig.failed(&poison).await;
    assert_eq!((failed.code, failed.stage, failed.attempts), (FailureCode::Poison, stage, 3), "{failed:?}");
    assert!(failed.message.contains("injected into"), "{stage}: the reason: {}", failed.message);
    let dead = rig.bus.until_dead_letters(1).await;
    assert_eq!(dead[0].header(dead_letter::CODE), Some("poison"));
    assert_eq!(dead[0].header(dead_letter::STAGE), Some(stage.as_str()));
    assert_eq!(dead[0].header(dead_letter::ATTEMPTS), Some("3"));
    assert!(dead[0].header(dead_letter::ERROR).is_some_and(|error| error.contains("injected into")));
    // What panics on a session or user that the next turn has, too, would dead-letter that one as well.
    if at != Op::Context {
        rig.saved(&behind).await;
        assert_eq!(rig.types(&behind), JOURNEY, "the session goes on");
    }
    rig.pass(ACK_WAIT * 2).await;
    rig.assert_idle();
    assert_eq!(rig.types(&poison).iter().filter(|event| event.is_end()).count(), 1);
    let deaths = rig.meters.count("throughline_worker_deaths_total", &[("stage", stage.as_str())]);
    assert!(deaths >= 3, "{stage}: {deaths}");
    assert_eq!(rig.meters.count("throughline_stage_restarts_total", &[]), 0, "no stage went down");
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_admitting_a_batch() {
    isolates(Op::Admit, StageName::Input).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_fetching_context() {
    isolates(Op::Context, StageName::Context).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_model_call() {
    isolates(Op::Generate, StageName::Generation).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_saving() {
    isolates(Op::Save, StageName::Persistence).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_admission_does_not_block_the_session() {
    // Admitted as the session's running turn, then its publish panics, every time.
    let (rig, worker) = Rig::running().await;
    worker.gate.on(|op, about| {
        let hit = op == Op::Publish && about.contains("input_validated") && about.contains("poison");
        if hit { Act::Panic } else { Act::Go }
    });
    let poison = rig.publish("w1", "s1", "poison");
    rig.pass(Duration::from_millis(100)).await;
    let behind = rig.publish("w2", "s1", "hello");
    assert_eq!(rig.failed(&poison).await.code, FailureCode::Poison);
    rig.saved(&behind).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_a_poisonous_message_keeps_its_order() {
    let mut rig = Rig::new();
    rig.models.otherwise(PROVIDER, |_| Reply::After(Duration::from_secs(1), Ok(answer("yes"))));
    rig.settings.stages.get_mut(&StageName::Input).unwrap().concurrency = 8;
    let worker = rig.worker().await;
    panics(&worker, Op::Admit, "poison");
    // Eight in the first batch; those that come later must not overtake them.
    let workflows: Vec<_> = (0..12)
        .map(|n| {
            if n == 3 {
                rig.publish("poison", "sick", "x")
            } else {
                rig.publish(&format!("w{n}"), "s1", &format!("{n}"))
            }
        })
        .collect();
    for workflow in workflows.iter().filter(|workflow| workflow.as_str() != "poison") {
        rig.saved(workflow).await;
    }
    let asked: Vec<_> = rig.models.requests().iter().map(question).collect();
    assert_eq!(asked, ["0", "1", "2", "4", "5", "6", "7", "8", "9", "10", "11"]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_after_the_row_is_written_does_not_make_it_a_failure() {
    let (rig, worker) = Rig::running().await;
    let panics = std::sync::atomic::AtomicUsize::new(0);
    worker.gate.on(move |op, about| {
        let hit = op == Op::Publish && about.contains("interaction_saved");
        if hit && panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 3 {
            Act::Panic
        } else {
            Act::Go
        }
    });
    let workflow = rig.publish("w1", "s1", "hello");
    let behind = rig.publish("w2", "s1", "what about me?");
    rig.saved(&workflow).await;
    rig.saved(&behind).await;
    assert_eq!(rig.types(&workflow), JOURNEY, "what is in the database is not reported as failed");
    let ends = rig.meters.count("throughline_workflows_saved_total", &[]);
    assert_eq!(ends, 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_does_not_come_again_is_forgiven() {
    for op in [Op::Admit, Op::Context, Op::Generate, Op::Save, Op::Publish] {
        let (rig, worker) = Rig::running().await;
        worker.gate.once(op, "", Act::Panic);
        let workflow = rig.publish("w1", "s1", "hello");
        rig.saved(&workflow).await;
        assert_eq!(rig.types(&workflow), JOURNEY, "{op:?}");
        assert!(rig.bus.dead_letters().is_empty(), "{op:?}");
        assert!(rig.seconds() < 2.0, "{op:?}: {} s", rig.seconds());
    }
}

#[tokio::test(start_paused = true)]
async fn what_panics_even_while_it_is_dead_lettered_comes_again_at_its_pace_and_holds_nobody_up() {
    let (rig, worker) = Rig::running().await;
    let dead_lettered = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&dead_lettered);
    worker.gate.on(move |op, about| {
        if op == Op::DeadLetter {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        if matches!(op, Op::Generate | Op::DeadLetter) && about.contains("poison") {
            Act::Panic
        } else {
            Act::Go
        }
    });
    rig.publish("w1", "s1", "poison");
    rig.pass(Duration::from_mins(1)).await;
    let tries = dead_lettered.load(std::sync::atomic::Ordering::Relaxed);
    assert!((2..=70).contains(&tries), "about once a second, not {tries} times a minute");
    rig.saved(&rig.publish("w2", "s2", "hello")).await;
    // And when dead-lettering works again, it ends.
    panics(&worker, Op::Generate, "poison");
    assert_eq!(rig.failed(&crate::harness::id("w1")).await.code, FailureCode::Poison);
}

#[tokio::test(start_paused = true)]
async fn panics_of_ours_say_nothing_about_the_provider() {
    let (rig, worker) = Rig::running().await;
    panics(&worker, Op::Generate, "poison");
    let sick: Vec<_> = (0..5).map(|n| rig.publish(&format!("p{n}"), &format!("s{n}"), "poison")).collect();
    for workflow in &sick {
        assert_eq!(rig.failed(workflow).await.code, FailureCode::Poison);
    }
    assert_eq!(rig.meters.count("throughline_breaker_transitions_total", &[]), 0);
    let before = rig.seconds();
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
    assert!(rig.seconds() - before < 0.1, "it did not have to wait for a breaker");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_the_bus_refuses_is_repeated() {
    let (rig, worker) = Rig::running().await;
    let start = tokio::time::Instant::now();
    worker.gate.on(move |op, about| match op {
        Op::Generate if about.contains("poison") => Act::Panic,
        Op::DeadLetter if start.elapsed() < Duration::from_secs(30) => Act::Lost,
        _ => Act::Go,
    });
    let poison = rig.publish("w1", "s1", "poison");
    let behind = rig.publish("w2", "s1", "hello");
    assert_eq!(rig.failed(&poison).await.code, FailureCode::Poison);
    assert_eq!(rig.types(&poison).last(), Some(&EventType::WorkflowFailed));
    rig.saved(&behind).await;
    assert_eq!(rig.bus.dead_letters().len(), 1);
    let deaths = rig.meters.count("throughline_worker_deaths_total", &[("stage", "generation")]);
    assert_eq!(deaths, 3, "it is not handled again while its dead letter waits for the bus");
}
