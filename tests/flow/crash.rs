//! Processes that die: a second one finishes what the first began, and nothing happens twice.

use std::time::Duration;

use throughline_actors::ports::memory::{model::answer, script::Reply};
use throughline_schemas::StageName;

use crate::harness::{ACK_WAIT, Act, JOURNEY, Op, PROVIDER, Rig, reply_to};

/// One worker dies as `rule` says, a second one takes over. Returns how often the model was called.
async fn dies(op: Op, marker: &'static str, act: Act) -> usize {
    let rig = Rig::new();
    let doomed = rig.worker().await;
    doomed.gate.once(op, marker, act);
    let workflow = rig.publish("w1", "s1", "hello");
    let next = rig.publish("w2", "s1", "and then?");
    doomed.gate.died().await;
    let _second = rig.worker().await;
    rig.saved(&workflow).await;
    rig.saved(&next).await;
    for workflow in [&workflow, &next] {
        assert_eq!(rig.types(workflow), JOURNEY, "{op:?} {marker} {act:?}: one of each event of {workflow}");
    }
    assert_eq!(rig.store.interactions(), 2, "{op:?} {marker} {act:?}");
    rig.pass(ACK_WAIT * 2).await;
    rig.assert_idle();
    rig.models.calls(PROVIDER) - 1
}

#[tokio::test(start_paused = true)]
async fn a_death_before_or_after_any_publish_changes_nothing() {
    for event in ["input_validated", "context_retrieved", "external_data_fetched", "interaction_saved"] {
        for act in [Act::Die, Act::DieAfter] {
            assert_eq!(dies(Op::Publish, event, act).await, 1, "{event} {act:?}: the model is asked once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_at_the_database_changes_nothing() {
    for op in [Op::Admit, Op::Context, Op::Save] {
        for act in [Act::Die, Act::DieAfter] {
            assert_eq!(dies(op, "", act).await, 1, "{op:?} {act:?}: the model is asked once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_between_publish_and_acknowledgement_is_noticed() {
    for stage in ["input", "context", "external", "generation", "persistence"] {
        assert_eq!(dies(Op::Settle, stage, Act::Die).await, 1, "{stage}: the model is asked once");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_with_its_process_is_asked_for_again() {
    assert_eq!(dies(Op::Generate, "hello", Act::Die).await, 1, "the call never got out");
    assert_eq!(dies(Op::Generate, "hello", Act::DieAfter).await, 2, "the answer never got in");
    assert_eq!(dies(Op::Publish, "response_generated", Act::Die).await, 2);
    assert_eq!(dies(Op::Publish, "response_generated", Act::DieAfter).await, 1, "it was published");
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_means_a_redelivery_and_no_second_answer() {
    let (rig, worker) = Rig::running().await;
    worker.gate.once(Op::Settle, "generation", Act::Lost);
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    rig.pass(ACK_WAIT * 2).await;
    assert_eq!(rig.models.calls(PROVIDER), 1);
    assert_eq!(rig.types(&workflow), JOURNEY);
    assert_eq!(rig.meters.count("throughline_redeliveries_total", &[("stage", "generation")]), 1);
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_for_a_minute_costs_time_and_no_second_call() {
    let (rig, _worker) = Rig::running().await;
    rig.models
        .otherwise(PROVIDER, |request| Reply::After(Duration::from_secs(5), Ok(answer(&reply_to(request)))));
    let workflows: Vec<_> =
        (0..10).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    rig.pass(Duration::from_secs(2)).await;
    rig.bus.set_connected(false);
    rig.pass(Duration::from_secs(20)).await;
    rig.bus.set_connected(true);
    for workflow in &workflows {
        rig.saved(workflow).await;
        assert_eq!(rig.types(workflow), JOURNEY);
    }
    assert_eq!(rig.models.calls(PROVIDER), 10, "answers are held until the bus takes them");
    rig.pass(ACK_WAIT * 3).await;
    rig.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn publishes_that_fail_are_repeated_with_what_is_in_hand() {
    use throughline_actors::ports::memory::bus::PublishFault::{Full, Lost, Unacknowledged};
    let (rig, _worker) = Rig::running().await;
    rig.bus.fail_publishes([
        Lost,
        Full,
        Unacknowledged,
        Lost,
        Unacknowledged,
        Full,
        Lost,
        Unacknowledged,
        Lost,
        Lost,
    ]);
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert_eq!(rig.types(&workflow), JOURNEY);
    assert_eq!((rig.models.calls(PROVIDER), rig.store.interactions()), (1, 1));
    assert_eq!(rig.meters.count("throughline_redeliveries_total", &[]), 0, "nothing went back to the server");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_full_for_half_an_hour_fails_nobody() {
    let (rig, worker) = Rig::running().await;
    let start = tokio::time::Instant::now();
    worker.gate.on(move |op, _| {
        let full = op == Op::Publish && start.elapsed() < Duration::from_secs(1_800);
        if full { Act::Lost } else { Act::Go }
    });
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert_eq!(rig.types(&workflow), JOURNEY);
    assert_eq!(rig.bus.in_hand(StageName::Input), 0);
}
